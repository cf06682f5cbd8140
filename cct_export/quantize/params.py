"""Scales and zero points of activations and constants, and those that engines prescribe."""

from dataclasses import replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array, Step

Range = tuple[float, float]
# 16 bits have room for values beyond the calibration range.
_HEADROOM = 2.0


def activation_params(range: Range, bits: int, symmetric: bool = False) -> QuantParams:
    """Returns per-tensor parameters for a range; 0 is always representable.

    Args:
        range: smallest and largest value.
        bits: 8, or 16 with headroom beyond the range.
        symmetric: whether the zero point is 0.
    """
    headroom = _HEADROOM if bits == 16 else 1.0
    low, high = min(range[0], 0.0) * headroom, max(range[1], 0.0) * headroom
    half = 2 ** (bits - 1)
    if symmetric:
        largest = max(-low, high) or 1.0
        return QuantParams(np.array(largest / (half - 1)), 0, -half, half - 1)
    scale = (high - low) / (2 * half - 1) or 1.0
    return QuantParams(np.array(scale), round(-half - low / scale), -half, half - 1)


def without_minimum(params: QuantParams) -> QuantParams:
    """Returns parameters of values from 0 on that leave the smallest integer unused.

    Kernels for Arm processors without dot products add two products in 16 bits, which
    ``(-128) · (-128)`` twice overflows (``ruy/validate.h``). They are safe if one of the two
    factors is never -128.
    """
    smallest, largest = params.qmin, params.qmax
    scale = params.scale * (largest - smallest) / (largest - smallest - 1)
    return replace(params, scale=scale, zero_point=smallest + 1)


def constant_params(values: Array, bits: int) -> QuantParams:
    """Returns symmetric per-tensor parameters that cover an array."""
    qmax = 2 ** (bits - 1) - 1
    return QuantParams(np.array((float(np.abs(values).max()) or 1.0) / qmax), 0, -qmax, qmax)


def pixel_params(bits: int, symmetric: bool = False) -> QuantParams:
    """Returns the parameters of pixels 0–255; integers with a zero point hold them exactly."""
    if symmetric:
        qmax = 2 ** (bits - 1) - 1
        return QuantParams(np.array(255 / qmax), 0, -qmax, qmax)
    half = 2 ** (bits - 1)
    return QuantParams(np.array(255 / (2 * half - 1)), -half, -half, half - 1)


def prescribed_output_params(step: Step, bits: int, symmetric: bool) -> QuantParams | None:
    """Returns the parameters that engines prescribe for the output of a static step, if any.

    LiteRT does for all three functions; ONNX Runtime's QNN provider wants the same 16 bits of
    sigmoid and tanh (``execution_providers/qnn/quant_config`` in ``onnxruntime.quantization``).
    """
    function = step.function if isinstance(step, steps.Activation) else ""
    if isinstance(step, steps.Softmax) or function == "sigmoid":
        return softmax_output_params(bits, symmetric)
    if isinstance(step, steps.Exp):  # of a softmax, whose largest exponential is 1
        return QuantParams(np.array(1 / 255), -128, -128, 127)
    if function == "tanh":
        half = 2 ** (bits - 1)
        return QuantParams(np.array(1 / half), 0, -half, half - 1)
    return None


def softmax_output_params(bits: int, symmetric: bool = False) -> QuantParams:
    """Returns the parameters of the output of an integer softmax or sigmoid: 0 to almost 1."""
    half = 2 ** (bits - 1)
    if symmetric:
        return QuantParams(np.array(1 / half), 0, -half, half - 1)
    return QuantParams(np.array(1 / (2 * half)), -half, -half, half - 1)
