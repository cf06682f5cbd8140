"""Writing a bundle: all of it, or nothing."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from cct_export.bundles.contents import Files, gather
from cct_export.bundles.targets import android, linux_cpp, raspberry_pi
from cct_export.errors import InvalidRequest, OutputError

TARGETS = {
    "android": android.files,
    "linux-cpp": linux_cpp.files,
    "raspberry-pi": raspberry_pi.files,
}
SUMS = "SHA256SUMS"


def make(artifact: Path, target: str, folder: Path) -> Path:
    """Writes a bundle.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file with its sidecar.
        target: a key of ``TARGETS``.
        folder: the bundle; must not exist, or be empty.

    Returns:
        ``folder``.

    Raises:
        InvalidRequest: there is no such target, or the target does not take the format.
        InvalidArtifact: see ``contents.gather``.
        OutputError: the folder is not empty, or cannot be written; nothing is left of it.
    """
    if target not in TARGETS:
        raise InvalidRequest(f"no target {target!r}: choose from {', '.join(TARGETS)}")
    _check_free(folder)
    files = TARGETS[target](gather(artifact, folder.name))
    files[SUMS] = sums(files)
    _write(files, folder)
    return folder


def sums(files: Files) -> bytes:
    """Returns what ``sha256sum --check`` reads."""
    lines = (f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    return "".join(lines).encode()


def _check_free(folder: Path) -> None:
    if not folder.name:
        raise OutputError(f"{folder} has no name that a bundle could have: name its folder with -o")
    try:
        full = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    if full or folder.is_symlink():  # a folder cannot be renamed to a link
        raise OutputError(f"{folder} is there already: name another folder with -o, or remove it")


def _write(files: Files, folder: Path) -> None:
    """Writes the files below ``folder``, which appears when all are there."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if content.startswith(b"#!"):
                path.chmod(path.stat().st_mode | 0o111)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        temporary.replace(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
