"""The Python API: the functions behind the commands, with files and frozen records in and out.

Every function imports what it needs when it is called, so that measuring a ``.tflite`` file never
loads TensorFlow.
"""

from cct_export.api.artifact import bundle, inspect, predict, verify
from cct_export.api.auto import export_auto
from cct_export.api.benchmark import benchmark, compare, time_together
from cct_export.api.check import check
from cct_export.api.device import doctor, remove_device, setup_device
from cct_export.api.export import export_files, export_onnx, export_tflite, quantize_report
from cct_export.api.export_ncnn import export_ncnn
from cct_export.api.micro import tflm_report
from cct_export.api.model import import_model, inspect_model, load, recipe, train
from cct_export.api.publish import push

__all__ = [
    "benchmark",
    "bundle",
    "check",
    "compare",
    "doctor",
    "export_auto",
    "export_files",
    "export_ncnn",
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
    "tflm_report",
    "time_together",
    "train",
    "verify",
]
