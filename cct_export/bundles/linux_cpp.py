"""A C++ program for Linux on ONNX Runtime's C API, or on ncnn."""

import hashlib
import struct

import numpy as np

from cct_export.bundles.contents import Contents
from cct_export.bundles.folder import Files, render
from cct_export.errors import InvalidRequest
from cct_export.records.layout import NCHW
from cct_export.specs import SUFFIXES

MAGIC = b"CCTGOLD1"
# Folder of templates with the engine's part of the program, by format.
ENGINES = {"onnx": "linux_cpp_onnx", "ncnn": "linux_cpp_ncnn"}


def files(contents: Contents) -> Files:
    """Returns the files of the bundle by path.

    Raises:
        InvalidRequest: the model is of a format without an engine here, or of types that the C++
            class does not support.
    """
    format = contents.description.format
    if format not in ENGINES:
        taken = " and ".join(SUFFIXES[format] for format in ENGINES)
        raise InvalidRequest(
            f"linux-cpp takes {taken} files, not {SUFFIXES[format]}: no package has LiteRT's C "
            "headers to build it with; export the model with cct-export onnx"
        )
    image = contents.description.input
    input_type, output_type = contents.inputs.dtype, contents.outputs.dtype
    if input_type not in (np.float32, np.uint8) or output_type != np.float32:
        raise InvalidRequest(
            "linux-cpp takes models with inputs of float32 or uint8 and outputs of float32, and "
            f"this one takes {input_type} and returns {output_type}"
        )
    height, width, channels = contents.golden.images.shape[1:]
    return {
        **render(ENGINES[format]),
        **render(
            "linux_cpp",
            format=format,
            summary=contents.summary,
            model_files=_checksums(contents),
            height=height,
            width=width,
            channels=channels,
            activation=contents.description.output.activation,
            antialias=image.antialias,
            crop=image.crop,
            channels_first=image.layout == NCHW,
        ),
        **contents.common_files(),
        "golden.bin": golden_bin(contents),
    }


def _checksums(contents: Contents) -> dict[str, str]:
    """Returns the SHA-256 of the files that hold the model, by name, the one to open first."""
    model = contents.description
    checksums = {model.model: model.sha256}
    if model.weights:
        checksums[model.weights] = hashlib.sha256(contents.weights).hexdigest()
    return checksums


def golden_bin(contents: Contents) -> bytes:
    """Returns golden inputs, the logits of Keras, and bounds; README.md describes the layout."""
    images, logits = contents.golden.images, contents.golden.logits
    bounds = contents.description.golden
    largest = float(max(1.0, np.abs(logits).max()))
    max_abs = (bounds.max_abs or 0.0) * largest
    return b"".join(
        [
            MAGIC,
            struct.pack("<6I", *images.shape, logits.shape[1], bounds.flips),
            struct.pack("<3d", bounds.sqnr_db, bounds.agreement, max_abs),
            np.ascontiguousarray(images, np.uint8).tobytes(),
            np.ascontiguousarray(logits, "<f4").tobytes(),
        ]
    )
