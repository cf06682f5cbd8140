"""Inspection of models and exported files: operators, multiply-accumulates, quantization."""

from cct_export.inspection import onnx, tflite

# Lists the operators and tensors of a file, by its format.
INSPECTORS = {"tflite": tflite.inspect, "onnx": onnx.inspect}
