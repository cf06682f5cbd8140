"""What is in a finished file: operators, their cost, their quantization; one module per format."""

from pathlib import Path

from cct_export import registry
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.results import Inspection


def inspect(path: Path) -> Inspection:
    """Returns what is in ``path``, a ``.tflite`` or ``.onnx`` file.

    Raises:
        InvalidRequest: its suffix is another one.
        InvalidArtifact: missing or broken.
        MissingDependency: what reads or runs the format is not installed.
    """
    if path.suffix not in (".tflite", ".onnx"):
        raise InvalidRequest(f"{path} is neither a .tflite nor an .onnx file")
    if not path.is_file():
        raise InvalidArtifact(f"{path} is not a file" if path.exists() else f"no such file: {path}")
    found: Inspection = registry.load(__name__, path.suffix[1:]).inspect(path)
    return found
