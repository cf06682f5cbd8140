"""The quantization schemes, and which of them each format supports."""

from dataclasses import replace

from cct_export.errors import UnsupportedScheme
from cct_export.specs import QuantScheme

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        QuantScheme("none", "float32 throughout"),
        QuantScheme("fp16", "float16 weights, half the size", "float16"),
        QuantScheme(
            "int8-dynamic", "int8 weights, activations quantized at run time",
            "int8", convolution="dynamic", dense="dynamic",
        ),
        QuantScheme(
            "int8", "int8 arithmetic where it pays: convolutions and attention scores calibrated, "
            "dense layers quantized at run time; float elsewhere",
            "int8", convolution="static", dense="dynamic", scores="static",
        ),
        QuantScheme(
            "int8-full", "integers only, int8 or uint8 in and out",
            "int8", convolution="static", dense="static", scores="static", rest="static",
        ),
        QuantScheme(
            "int16x8", "integers only: 16-bit activations, 8-bit weights",
            "int8", convolution="static", dense="static", scores="static", rest="static", bits=16,
        ),
        QuantScheme(
            "int4-weight", "int4 weights in dense layers, int8 in convolutions",
            "int4", convolution="dynamic", dense="dynamic",
        ),
    )
}  # fmt: skip

# ONNX Runtime's dynamically quantized convolutions are slower than its float ones, and it
# multiplies activations with each other no faster in integers. Its dynamic ranges span the whole
# batch, so the logits of an image depend on the other images; int8 needs none and is as fast.
_ONNX = {
    scheme.name: scheme
    for scheme in (
        SCHEMES["none"],
        SCHEMES["fp16"],
        replace(
            SCHEMES["int8-dynamic"], convolution="float", per_token=False,
            about="int8 weights, activations of dense layers quantized at run time",
        ),
        replace(
            SCHEMES["int8"], dense="static-inputs", scores="float",
            about="int8 arithmetic where it pays: convolutions and dense layers, calibrated; float "
            "elsewhere",
        ),
        replace(
            SCHEMES["int4-weight"], convolution="float", dense="float",
            about="int4 weights in dense layers, int8 in convolutions, float arithmetic",
        ),
    )
}  # fmt: skip

BY_FORMAT = {"tflite": SCHEMES, "onnx": _ONNX}


def scheme_of(name: str, format: str) -> QuantScheme:
    """Returns a scheme as a format implements it.

    Raises:
        UnsupportedScheme: no format has the scheme, or this one does not.
    """
    if name in BY_FORMAT[format]:
        return BY_FORMAT[format][name]
    supporting = sorted(other for other, schemes in BY_FORMAT.items() if name in schemes)
    hint = f"; {', '.join(supporting)} has it" if supporting else ""
    raise UnsupportedScheme(
        f"{format} has no quantization scheme {name!r}{hint}: "
        f"choose from {', '.join(BY_FORMAT[format])}"
    )
