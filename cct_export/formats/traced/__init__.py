"""Any Keras image classifier, traced at inference and converted by the stock converters."""

from cct_export.formats.traced import onnx, tflite

CONVERTERS = {"tflite": tflite.convert, "onnx": onnx.convert}
