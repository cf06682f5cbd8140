"""The quantization schemes, and which of them each format supports."""

from dataclasses import replace

from cct_export.errors import InvalidRequest, UnsupportedScheme
from cct_export.names import choose
from cct_export.specs import INPUT_TYPES, NPU_ACTIVATIONS, TARGETS, QuantScheme

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
            "int8", "int8 arithmetic where it pays: convolutions, attention and the layers before "
            "GELU calibrated, other dense layers quantized at run time; float elsewhere",
            "int8", convolution="static", dense="dynamic", attention="static",
        ),
        QuantScheme(
            "int8-full", "integers only, int8 or uint8 in and out",
            "int8", convolution="static", dense="static", attention="static", rest="static",
            integer_ends=True,
        ),
        QuantScheme(
            "int16x8", "integers only: 16-bit activations, 8-bit weights",
            "int8", convolution="static", dense="static", attention="static", rest="static",
            bits=16, symmetric=True,
        ),
        QuantScheme(
            "int4-weight", "int4 weights in dense layers, quantized at run time; convolutions and "
            "attention scores calibrated",
            "int4", convolution="static", dense="dynamic", attention="scores",
        ),
    )
}  # fmt: skip

# ONNX Runtime convolves few channels faster in float than in integers, and multiplies activations
# with each other no faster in integers. Its dynamic ranges span the whole batch, so the logits of
# an image depend on the other images; int8 needs none and is as fast.
_ONNX = {
    scheme.name: scheme
    for scheme in (
        SCHEMES["none"],
        SCHEMES["fp16"],
        replace(
            SCHEMES["int8-dynamic"], first_convolution="float", per_token=False,
        ),
        replace(
            SCHEMES["int8"], first_convolution="float", dense="static-inputs", attention="float",
            about="int8 arithmetic where it pays: convolutions and dense layers, calibrated; float "
            "elsewhere",
        ),
        replace(
            SCHEMES["int8-full"], integer_ends=False,
            about="for NPUs: QDQ pairs throughout, uint8 activations, int8 weights",
        ),
        replace(
            SCHEMES["int16x8"], symmetric=False,
            about="for NPUs: QDQ pairs throughout, uint16 activations, int8 weights",
        ),
        replace(
            SCHEMES["int4-weight"], block=32, first_convolution="float", dense="float",
            attention="float",
            about="int4 weights in dense layers, int8 arithmetic in convolutions",
        ),
    )
}  # fmt: skip

# ncnn has one scale for the activations of a layer, and no zero point.
_NCNN = {
    scheme.name: scheme
    for scheme in (
        SCHEMES["none"],
        SCHEMES["fp16"],
        replace(
            SCHEMES["int8"], convolution="static-inputs", first_convolution="float",
            attention="dynamic", symmetric=True, per_token=False,
            about="int8 arithmetic where it pays: convolutions calibrated, dense layers and "
            "products of matrices quantized at run time; float elsewhere",
        ),
    )
}  # fmt: skip

BY_FORMAT = {"tflite": SCHEMES, "onnx": _ONNX, "ncnn": _NCNN}


def scheme_of(name: str, format: str) -> QuantScheme:
    """Returns a scheme as a format implements it.

    Raises:
        UnsupportedScheme: there is no such scheme.
    """
    return BY_FORMAT[format][choose_scheme(name, format)]


def choose_scheme(name: str, format: str, *others: str) -> str:
    """Returns the name of a scheme of a format, or one of ``others``; see ``names.choose``.

    Raises:
        UnsupportedScheme: there is no such scheme.
    """
    supported = [*BY_FORMAT[format], *others]
    return choose(name, supported, what="quantization scheme", error=UnsupportedScheme)


def with_activations(scheme: str, activations: str | None) -> str:
    """Returns the ONNX scheme of integers only whose activations have a type.

    Args:
        scheme: name of a scheme.
        activations: ``uint8`` or ``uint16``; None for the scheme's own.

    Raises:
        InvalidRequest: there is no such type.
        UnsupportedScheme: the scheme has no activations of that type.
    """
    if activations is None:
        return scheme
    type = choose(activations, NPU_ACTIVATIONS.values(), what="type of activations")
    if scheme == "int8-full":
        return next(name for name, own in NPU_ACTIVATIONS.items() if own == type)
    if NPU_ACTIVATIONS.get(scheme) != type:
        raise UnsupportedScheme(
            f"--quantize {scheme} has no {type} activations: choose --quantize int8-full",
            needs="--quantize int8-full",
        )
    return scheme


def fast_schemes(format: str) -> list[str]:
    """Returns the schemes of which one can be the fastest on a CPU.

    ONNX Runtime computes norms, GELU and 16 bits in float: QDQ pairs around them, which tell an
    NPU's compiler about integers, are nothing but work for a CPU.
    """
    return [
        name
        for name, scheme in BY_FORMAT[format].items()
        if format == "tflite" or not scheme.integers_only
    ]


def choose_io(io: str | None, scheme: QuantScheme | None, format: str) -> str:
    """Returns the type of the image input.

    Args:
        io: as the user names it; None for the default.
        scheme: as the format implements it; None where all are tried.
        format: ``tflite``, ``onnx`` or ``ncnn``.

    Raises:
        InvalidRequest: the format does not take it.
        UnsupportedScheme: the scheme does not.
    """
    only_int8 = scheme is not None and scheme.integer_ends
    if io is None:
        return "int8" if only_int8 else INPUT_TYPES[format][0]
    io = choose(io, INPUT_TYPES[format], what=f"image type of {format}")
    if only_int8 and io == "float32":
        raise UnsupportedScheme(
            "int8-full takes images as integers: choose --io int8 or uint8", needs="--io int8"
        )
    return io


def choose_target(target: str | None, scheme: str, format: str) -> str:
    """Returns what a file is made for; empty for the default.

    Args:
        target: as the user names it; None for the default.
        scheme: name of the scheme.
        format: ``tflite``, ``onnx`` or ``ncnn``.

    Raises:
        InvalidRequest: the format has no such target.
        UnsupportedScheme: the target does not take the scheme.
    """
    if target is None:
        return ""
    if format not in TARGETS:
        raise InvalidRequest(f"{format} files have no target: leave --target {target} out")
    target = choose(target, TARGETS[format], what=f"target of {format}")
    if target == "tflm" and scheme != "int8-full":
        raise UnsupportedScheme(
            f"TFLite Micro is for integers only, not {scheme}: choose --quantize int8-full",
            needs="--quantize int8-full",
        )
    return "" if target == TARGETS[format][0] else target
