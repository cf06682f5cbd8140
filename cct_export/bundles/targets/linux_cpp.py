"""A C++ program for Linux, on ONNX Runtime's C API."""

import struct

import numpy as np

from cct_export.bundles.contents import Contents, Files
from cct_export.bundles.reading import summary, texts
from cct_export.errors import InvalidRequest

MAGIC = b"CCTGOLD1"


def files(contents: Contents) -> Files:
    """Returns the files of the bundle by path.

    Raises:
        InvalidRequest: the model is no ``.onnx`` file, or its output is no float.
    """
    if contents.format != "onnx":
        raise InvalidRequest(
            f"linux-cpp takes .onnx files, not .{contents.format}: LiteRT's C headers are in no "
            "package that it could be built with; export the model with cct-export onnx"
        )
    if contents.inputs.dtype not in (np.float32, np.uint8) or contents.outputs.dtype != np.float32:
        raise InvalidRequest(
            "linux-cpp takes models from float32 or uint8 to float32, and this one is from "
            f"{contents.inputs.dtype} to {contents.outputs.dtype}"
        )
    return {
        **texts("linux_cpp", summary=summary(contents)),
        **contents.common(),
        "golden.bin": golden_bin(contents),
    }


def golden_bin(contents: Contents) -> bytes:
    """Returns golden images, Keras' logits and bounds; the layout is in the bundle's README."""
    golden = contents.golden
    bounds = contents.model_json()["golden"]
    count, height, width, channels = golden.images.shape
    classes = golden.logits.shape[1]
    largest = float(max(1.0, np.abs(golden.logits).max()))
    limits = (bounds["sqnr_db"], bounds["agreement"], (bounds["max_abs"] or 0.0) * largest)
    return b"".join(
        [
            MAGIC,
            struct.pack("<6I", count, height, width, channels, classes, bounds["flips"]),
            struct.pack("<3d", *limits),
            np.ascontiguousarray(golden.images, np.uint8).tobytes(),
            np.ascontiguousarray(golden.logits, "<f4").tobytes(),
        ]
    )
