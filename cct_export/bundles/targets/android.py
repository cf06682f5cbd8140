"""An Android library module: the model, a Kotlin class, and a test that proves it on a device."""

import base64
import json
import re
import unicodedata

import numpy as np

from cct_export.bundles.contents import Contents, Files
from cct_export.bundles.reading import summary, texts
from cct_export.errors import InvalidArtifact, InvalidRequest

INPUTS = ("float32", "uint8", "int8")
OUTPUTS = ("float32", "uint8", "int8")
_INT8_SHIFT = 128


def files(contents: Contents) -> Files:
    """Returns the files of the module by path.

    Raises:
        InvalidRequest: the model is no ``.tflite`` file, or of types that the Kotlin class lacks.
        InvalidArtifact: its int8 input is not the pixels less 128.
    """
    if contents.format != "tflite":
        raise InvalidRequest(
            f"android takes .tflite files, not .{contents.format}: export the model with "
            "cct-export tflite"
        )
    _check_ends(contents)
    name = identifier(contents.name)
    assets = f"src/main/assets/{name}"
    return {
        **texts("android", name=name, summary=summary(contents)),
        **{f"{assets}/{path}": content for path, content in contents.common().items()},
        f"src/androidTest/assets/{name}/golden.json": golden_json(contents),
    }


def identifier(name: str) -> str:
    """Returns the name of a bundle as a word of a Gradle namespace, a Kotlin package and a path.

    >>> identifier("Größe 2-android")
    'groe_2_android'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    word = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    # A word with an underscore is no keyword of Kotlin or Java.
    return word if "_" in word and word[0].isalpha() else f"model_{word}".strip("_")


def golden_json(contents: Contents) -> bytes:
    """Returns images as base64 of uint8 pixels, with Keras' logits; bounds are in model.json."""
    golden = contents.golden
    images = np.ascontiguousarray(golden.images, np.uint8)
    record = {
        "origin": golden.origin,
        "shape": list(images.shape),
        "images": [base64.b64encode(image.tobytes()).decode() for image in images],
        "logits": [[float(value) for value in row] for row in golden.logits],
    }
    return (json.dumps(record, indent=1) + "\n").encode()


def _check_ends(contents: Contents) -> None:
    image, logits = str(contents.inputs.dtype), str(contents.outputs.dtype)
    if image not in INPUTS or logits not in OUTPUTS:
        raise InvalidRequest(
            "android takes models from and to float32, uint8 or int8, and this one is from "
            f"{image} to {logits}"
        )
    pixels = contents.golden.images.astype(np.int16) - (_INT8_SHIFT if image == "int8" else 0)
    if not np.array_equal(contents.inputs, pixels):
        raise InvalidArtifact(
            "the model's input is quantized in another way than pixel - 128, which the Kotlin "
            "class does not do: export it with cct-export tflite --io uint8 or float32"
        )
