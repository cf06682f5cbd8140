"""What TFLite Micro makes of exported files."""

from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.request import check_artifact, check_data
from cct_export.errors import InvalidRequest
from cct_export.specs import SAMPLES
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.records import MicroReport

# An image takes tens of milliseconds in each of the two engines.
MICRO_SAMPLES = 100


def tflm_report(
    artifact: str | Path,
    *,
    data: str | None = None,
    samples: int = MICRO_SAMPLES,
    progress: StatusProgress = no_progress,
) -> "MicroReport":
    """Runs a ``.tflite`` file in TFLite Micro, and compares it with LiteRT's reference kernels.

    Args:
        artifact: the file, of ``export_tflite(target="tflm")`` or any other.
        data: images to compare on: a name, folder or ``.npz``; without it photo crops.
        samples: number of those images.
        progress: called with what runs now.

    Returns:
        Memory, operators, how many images have other logits and by how much, and parity with Keras
        on the golden images of the sidecar. No latency: that of a PC says nothing of a
        microcontroller's.

    Raises:
        InvalidRequest: no such file, or not a ``.tflite`` file.
        InvalidArtifact: TFLite Micro cannot run it.
        MissingDependency: tflite-micro is not installed.

    Example:
        >>> cct_export.tflm_report("cct-int8-full-tflm.tflite").arena_bytes
        171552
    """
    path = Path(artifact)
    if check_artifact(path) != "tflite":
        raise InvalidRequest(f"{path} is no .tflite file: TFLite Micro runs no others")
    if data is not None:
        data = check_data(data)
    SAMPLES.check("samples", samples)
    from cct_export.evaluation import micro
    from cct_export.inspection import inspect_file
    from cct_export.runtimes import tflm

    tflm.import_engine()
    operators = inspect_file(path, "tflite").kinds()
    return micro.report(path, data=data, samples=samples, operators=operators, progress=progress)
