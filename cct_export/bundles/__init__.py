"""Bundles: folders that bring an exported file to a device, with code to run and verify it there.

One module per target. Each has ``files(contents)``, which returns the files of its bundle by path.
"""

from collections.abc import Callable
from pathlib import Path

from cct_export.bundles import android, folder, linux_cpp, microcontroller, raspberry_pi
from cct_export.bundles.contents import Contents, gather
from cct_export.bundles.folder import CHECKSUMS, Files
from cct_export.errors import InvalidRequest

TARGETS: dict[str, Callable[[Contents], Files]] = {
    "android": android.files,
    "linux-cpp": linux_cpp.files,
    "microcontroller": microcontroller.files,
    "raspberry-pi": raspberry_pi.files,
}


def make(artifact: Path, *, target: str, output: Path) -> Path:
    """Writes a bundle.

    Args:
        artifact: a ``.tflite``, ``.onnx`` or ``.ncnn.param`` file with its sidecar.
        target: a key of ``TARGETS``.
        output: folder of the bundle, which must be empty or missing.

    Returns:
        ``output``.

    Raises:
        InvalidRequest: there is no such target, or it does not take the format.
        InvalidArtifact: the file cannot be bundled, see ``contents.gather``.
        OutputError: the folder is not empty or cannot be written; nothing of it is left.
    """
    if target not in TARGETS:
        raise InvalidRequest(f"no target {target!r}: choose from {', '.join(TARGETS)}")
    folder.check_available(output)
    files = TARGETS[target](gather(artifact, output.name))
    files[CHECKSUMS] = folder.checksums(files)
    folder.write(files, output)
    return output
