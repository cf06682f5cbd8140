"""Inspection of models and exported files: operators, multiply-accumulates, quantization."""

from pathlib import Path

from cct_export.errors import InvalidArtifact
from cct_export.inspection import onnx, tflite
from cct_export.records import Inspection
from cct_export.runtimes import format_of

INSPECTORS = {"tflite": tflite.inspect, "onnx": onnx.inspect}


def inspect(path: Path) -> Inspection:
    """Lists operators and tensors of a ``.tflite`` or ``.onnx`` file.

    Raises:
        InvalidRequest: the file has another suffix.
        InvalidArtifact: it is missing or broken.
        MissingDependency: a library that reads or runs the format is not installed.
    """
    format = format_of(path)
    if not path.is_file():
        raise InvalidArtifact(f"{path} is not a file" if path.exists() else f"no such file: {path}")
    return INSPECTORS[format](path)
