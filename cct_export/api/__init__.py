"""The Python API: what the commands call, with files and frozen records in and out.

Everything heavy is imported by the function that needs it, so that measuring a ``.tflite`` never
loads TensorFlow.
"""

from cct_export.api.comparing import check, compare
from cct_export.api.devices import remove_device, setup_device
from cct_export.api.exports import export_onnx, export_tflite, quantize_report
from cct_export.api.files import bundle, inspect, inspect_model, predict, verify
from cct_export.api.measuring import bench, doctor, time_together
from cct_export.api.models import import_model, load, recipe, train
from cct_export.api.publishing import push

__all__ = [
    "bench",
    "bundle",
    "check",
    "compare",
    "doctor",
    "export_onnx",
    "export_tflite",
    "import_model",
    "inspect",
    "inspect_model",
    "load",
    "predict",
    "push",
    "quantize_report",
    "recipe",
    "remove_device",
    "setup_device",
    "time_together",
    "train",
    "verify",
]
