"""Inspection of models and exported files: operators, multiply-accumulates, quantization."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cct_export import workers
from cct_export.errors import InvalidArtifact
from cct_export.inspection import onnx, tflite
from cct_export.records import Inspection, sidecar
from cct_export.runtimes import tflm
from cct_export.specs.progress import CountProgress

# Lists the operators and tensors of a file, by its format.
_INSPECTORS = {"tflite": tflite.inspect, "onnx": onnx.inspect}


class Worker:
    """The process that inspects a file: it may crash the engine that opens it.

    Args:
        progress: not called: it takes no time.
    """

    def __init__(self, progress: CountProgress) -> None:
        pass

    def inspect(self, path: str, format: str) -> Inspection:
        """Inspects a file; see ``inspect_file``."""
        inspection = _INSPECTORS[format](Path(path))
        warnings = (
            sidecar.examine(Path(path), inspection.contract).warning,
            inspection.contradiction,
            *inspection.warnings,
        )
        return replace(inspection, warnings=tuple(filter(None, warnings)))


def inspect_file(path: Path, format: str) -> Inspection:
    """Lists operators and tensors of a file of unknown origin, in a process of its own.

    Args:
        path: the file.
        format: ``tflite`` or ``onnx``.

    Raises:
        InvalidArtifact: it is broken.
        EngineFailed: it crashes the engine, or takes too much time or memory.
        MissingDependency: the engine, or for ONNX the library onnx, is not installed.
    """
    with workers.start(f"{__name__}:Worker", str(path)) as channel:
        inspection = channel.ask("inspect", Inspection, path=str(path), format=format)
    return replace(inspection, arena_bytes=_arena_bytes(inspection))


def _arena_bytes(inspection: Inspection) -> int | None:
    """Returns the memory that TFLite Micro takes, None where it does not run the file."""
    taken = all("tflm" in (operator.taken_by or ()) for operator in inspection.operators)
    if not taken or not tflm.is_installed():
        return None
    try:
        with closing(tflm.open_session(inspection.path)) as session:
            return session.arena_bytes
    except InvalidArtifact:  # the lists do not know what it makes of shapes
        return None
