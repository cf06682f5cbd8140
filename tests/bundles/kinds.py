"""The files of which the tests make bundles."""

import pytest

KINDS = [
    ("tflite", "none", "float32"),
    ("tflite", "int8", "uint8"),
    ("tflite", "int8-full", "int8"),
    ("onnx", "none", "float32"),
    ("onnx", "int8", "uint8"),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids="-".join)
FAST = ("tflite", "int8", "uint8")
