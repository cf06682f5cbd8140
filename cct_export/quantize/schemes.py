"""The quantization schemes as data, and which format has which."""

from cct_export.errors import UnsupportedScheme
from cct_export.specs import QuantScheme

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        QuantScheme("none", "float32", "float", "float", "float32 throughout"),
        QuantScheme("fp16", "float16", "float", "float", "float16 weights, half the size"),
        QuantScheme(
            "int8-dynamic", "int8", "dynamic", "dynamic",
            "int8 weights, activations quantized at run time, no calibration",
        ),
        QuantScheme(
            "int8", "int8", "static", "dynamic",
            "int8 arithmetic in convolutions (calibrated) and dense layers, float elsewhere",
        ),
    )
}  # fmt: skip

# ONNX Runtime runs dense layers with calibrated activations fastest, XNNPACK those with
# activations quantized at run time, which also lose less. Its convolutions with activations
# quantized at run time are slower than its float ones.
_ONNX_DYNAMIC = QuantScheme(
    "int8-dynamic", "int8", "float", "dynamic",
    "int8 weights, activations of dense layers quantized at run time, no calibration",
)  # fmt: skip
_ONNX_INT8 = QuantScheme(
    "int8", "int8", "static", "static",
    "int8 arithmetic in convolutions and dense layers (calibrated), float elsewhere",
)  # fmt: skip

BY_FORMAT = {
    "tflite": SCHEMES,
    "onnx": SCHEMES | {scheme.name: scheme for scheme in (_ONNX_DYNAMIC, _ONNX_INT8)},
}


def scheme(name: str, format: str) -> QuantScheme:
    """Returns the scheme ``name`` as ``format`` does it.

    Raises:
        UnsupportedScheme: there is no such scheme, or the format lacks it.
    """
    try:
        return BY_FORMAT[format][name]
    except KeyError:
        having = sorted(other for other, schemes in BY_FORMAT.items() if name in schemes)
        where = f"; {', '.join(having)} has it" if having else ""
        raise UnsupportedScheme(
            f"{format} has no quantization scheme {name!r}{where}: "
            f"choose from {', '.join(BY_FORMAT[format])}"
        ) from None
