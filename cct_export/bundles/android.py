"""An Android library module: the model, a Kotlin class, and an instrumented parity test."""

import base64

from cct_export.bundles.c_source import ascii_word
from cct_export.bundles.contents import Contents
from cct_export.bundles.folder import Files, render
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.records.encoding import to_text
from cct_export.specs import SUFFIXES

# What the Kotlin class reads and writes.
TYPES = ("float32", "uint8", "int8")
# What else runs a file that the Kotlin class does not, by format.
_OTHERWISE = {"ncnn": ", or run this one in C++ with ncnn's library for Android (docs/ncnn.md)"}


def files(contents: Contents) -> Files:
    """Returns the files of the module by path.

    Raises:
        InvalidRequest: the model is not a ``.tflite`` file, or of types that the Kotlin class does
            not support.
        InvalidArtifact: its int8 input is not ``pixel - 128``.
    """
    format = contents.description.format
    if format != "tflite":
        raise InvalidRequest(
            f"android takes .tflite files, not {SUFFIXES[format]}: export the model with "
            f"cct-export tflite{_OTHERWISE.get(format, '')}"
        )
    _check_types(contents)
    package = identifier(contents.name)
    assets = f"src/main/assets/{package}"
    return {
        **render("android", package=package, summary=contents.summary),
        **{f"{assets}/{path}": content for path, content in contents.common_files().items()},
        f"src/androidTest/assets/{package}/golden.json": golden_json(contents),
    }


def identifier(name: str) -> str:
    """Returns the name of a bundle as an identifier for Gradle, Kotlin and paths.

    Example:
        >>> identifier("Größe 2-android")
        'groe_2_android'
    """
    word = ascii_word(name)
    # No keyword of Kotlin or Java has an underscore.
    return word if "_" in word and word[0].isalpha() else f"model_{word}".strip("_")


def golden_json(contents: Contents) -> bytes:
    """Returns the golden inputs, uint8 pixels in base64, and the logits of Keras as JSON."""
    golden = contents.golden
    return to_text(
        {
            "origin": golden.origin,
            "shape": golden.images.shape,
            "images": [base64.b64encode(image.tobytes()).decode() for image in golden.images],
            "logits": golden.logits.tolist(),
        }
    ).encode()


def _check_types(contents: Contents) -> None:
    input_type, output_type = str(contents.inputs.dtype), str(contents.outputs.dtype)
    if input_type not in TYPES or output_type not in TYPES:
        raise InvalidRequest(
            f"android takes models with inputs and outputs of {', '.join(TYPES)}, and this one "
            f"takes {input_type} and returns {output_type}"
        )
    if not contents.takes_pixels:
        raise InvalidArtifact(
            "the model's input is not quantized as pixel - 128, the only way that the Kotlin class "
            "supports: export it with cct-export tflite --io uint8 or --io float32"
        )
