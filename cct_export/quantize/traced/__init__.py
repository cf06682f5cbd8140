"""Post-training quantization of traced models with the libraries' own tools."""

from cct_export.quantize.traced import onnx, tflite

QUANTIZERS = {"tflite": tflite.quantize, "onnx": onnx.quantize}
