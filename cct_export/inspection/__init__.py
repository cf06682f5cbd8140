"""Inspection of models and exported files: operators, multiply-accumulates, quantization."""

from dataclasses import replace
from pathlib import Path

from cct_export.inspection import onnx, tflite
from cct_export.records import Inspection, sidecar

# Lists the operators and tensors of a file, by its format.
INSPECTORS = {"tflite": tflite.inspect, "onnx": onnx.inspect}


def inspect(path: Path, format: str) -> Inspection:
    """Lists the operators and tensors of a file; see ``api.inspect``."""
    inspection = INSPECTORS[format](path)
    warnings = (
        sidecar.examine(path, inspection.contract).warning,
        inspection.contradiction,
        *inspection.warnings,
    )
    return replace(inspection, warnings=tuple(filter(None, warnings)))
