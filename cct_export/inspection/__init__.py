"""What is in a finished file: operators, their cost, their quantization; one module per format."""

from pathlib import Path

from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.inspection import onnx, tflite
from cct_export.records import Inspection

INSPECTORS = {".tflite": tflite.inspect, ".onnx": onnx.inspect}


def inspect(path: Path) -> Inspection:
    """Returns what is in ``path``, a ``.tflite`` or ``.onnx`` file.

    Raises:
        InvalidRequest: its suffix is another one.
        InvalidArtifact: missing or broken.
        MissingDependency: what reads or runs the format is not installed.
    """
    if path.suffix not in INSPECTORS:
        raise InvalidRequest(f"{path} is neither a .tflite nor an .onnx file")
    if not path.is_file():
        raise InvalidArtifact(f"{path} is not a file" if path.exists() else f"no such file: {path}")
    return INSPECTORS[path.suffix](path)
