"""Inspection of models and exported files: operators, multiply-accumulates, quantization."""

from dataclasses import replace
from pathlib import Path

from cct_export import workers
from cct_export.inspection import onnx, tflite
from cct_export.records import Inspection, sidecar
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
        return channel.ask("inspect", Inspection, path=str(path), format=format)
