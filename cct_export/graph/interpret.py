"""The reference implementation of every step, with numpy in float64."""

import math
from collections.abc import Callable
from functools import singledispatch

import numpy as np

from cct_export.graph import steps
from cct_export.graph.steps import Array, Step

# Values that a convolution copies at a time: 32 MiB.
_MAX_COPIED = 2**22


@singledispatch
def compute(step: Step, *inputs: Array) -> Array:
    """Returns the output of a step for inputs with a leading batch axis."""
    raise TypeError(f"{step.kind} cannot be computed")


@compute.register
def _(step: steps.Scale, x: Array) -> Array:
    return x * step.scale + step.shift


def _windows(x: Array, size: tuple[int, ...], strides: tuple[int, int]) -> Array:
    """Returns all windows, ``(batch, rows, columns, channels, *size)``."""
    view = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))
    return view[:, :: strides[0], :: strides[1]]


def _pad(x: Array, pads: steps.Pads, value: float) -> Array:
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def patches(step: steps.Conv, x: Array) -> Array:
    """Returns the patches that a kernel multiplies, as im2col does.

    Args:
        step: the convolution.
        x: feature maps, ``(batch, height, width, channels)``.

    Returns:
        ``(batch, rows, columns, channels, *kernel size)``.
    """
    return _windows(_pad(x, step.pads, 0.0), step.kernel.shape[:2], step.strides)


@compute.register
def _(step: steps.Conv, x: Array) -> Array:
    windows = patches(step, x)
    # A product copies its windows, so that many images need several.
    images = max(1, _MAX_COPIED // (windows.size // len(windows)))
    sums = [
        np.tensordot(windows[i : i + images], step.kernel, axes=((4, 5, 3), (0, 1, 2)))
        for i in range(0, len(windows), images)
    ]
    return _biased(step, sums[0] if len(sums) == 1 else np.concatenate(sums))


def _biased(step: steps.Conv | steps.Dense, y: Array) -> Array:
    """Returns the sums of a step with its bias and its ReLU."""
    if step.bias is not None:
        y = y + step.bias
    return np.clip(y, 0, step.ceiling) if step.relu else y


@compute.register
def _(step: steps.ZeroPad, x: Array) -> Array:
    return _pad(x, step.pads, 0.0)


@compute.register
def _(step: steps.MaxPool, x: Array) -> Array:
    maxima: Array = _windows(_pad(x, step.pads, -np.inf), step.size, step.strides).max((4, 5))
    return maxima


@compute.register
def _(step: steps.AveragePool, x: Array) -> Array:
    return _window_sums(step, x) / _window_sums(step, np.ones((1, *x.shape[1:3], 1)))


def _window_sums(step: steps.AveragePool, x: Array) -> Array:
    sums: Array = _windows(_pad(x, step.pads, 0.0), step.size, step.strides).sum((4, 5))
    return sums


def padded_share(step: steps.AveragePool, shape: steps.Shape) -> Array:
    """Returns, for every window, its size divided by the number of values that it covers.

    Args:
        step: the pool.
        shape: that of its input, ``(height, width, channels)``.

    Returns:
        ``(rows, columns, 1)``.
    """
    share: Array = math.prod(step.size) / _window_sums(step, np.ones((1, *shape[:2], 1)))[0]
    return share


@compute.register
def _(step: steps.GlobalPool, x: Array) -> Array:
    axes = tuple(range(1, x.ndim - 1))
    pooled: Array = x.max(axes) if step.maximum else x.mean(axes)
    return pooled


@compute.register
def _(step: steps.Gather, x: Array) -> Array:
    channels: Array = x[..., list(step.order)]
    return channels


@compute.register
def _(step: steps.Resize, x: Array) -> Array:
    for axis, size in enumerate(step.size, start=1):
        centres = np.clip((np.arange(size) + 0.5) * x.shape[axis] / size - 0.5, 0, None)
        low = np.minimum(centres.astype(int), x.shape[axis] - 1)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (centres - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


@compute.register
def _(step: steps.Reshape, x: Array) -> Array:
    return x.reshape(len(x), *step.to)


@compute.register
def _(step: steps.Transpose, x: Array) -> Array:
    return x.transpose(0, *(axis + 1 for axis in step.order))


@compute.register
def _(step: steps.Slice, x: Array) -> Array:
    return x[..., step.start : step.stop]


@compute.register
def _(step: steps.Crop, x: Array) -> Array:
    return x[:, *map(slice, step.starts, step.stops)]


@compute.register
def _(step: steps.Concat, *inputs: Array) -> Array:
    return np.concatenate(inputs, -1)


@compute.register
def _(step: steps.Add, x: Array, y: Array) -> Array:
    return x + y


@compute.register
def _(step: steps.AddConstant, x: Array) -> Array:
    return x + step.value


@compute.register
def _(step: steps.LayerNorm, x: Array) -> Array:
    centred = x if step.centred else x - x.mean(-1, keepdims=True)
    y: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + step.epsilon)
    if step.gamma is not None:
        y = y * step.gamma
    return y if step.beta is None else y + step.beta


@compute.register
def _(step: steps.Mean, x: Array) -> Array:
    mean: Array = x.mean(-1, keepdims=True)
    return mean


@compute.register
def _(step: steps.MeanSquare, x: Array) -> Array:
    mean: Array = (x**2).mean(-1, keepdims=True)
    return mean


@compute.register
def _(step: steps.Maximum, x: Array) -> Array:
    largest: Array = x.max(-1, keepdims=True)
    return largest


@compute.register
def _(step: steps.Subtract, x: Array, y: Array) -> Array:
    return x - y


@compute.register
def _(step: steps.Multiply, x: Array, y: Array) -> Array:
    return x * y


@compute.register
def _(step: steps.Rsqrt, x: Array) -> Array:
    y: Array = 1 / np.sqrt(x + step.epsilon)
    return y


@compute.register
def _(step: steps.Dense, x: Array) -> Array:
    return _biased(step, x @ step.kernel)


@compute.register
def _(step: steps.Gelu, x: Array) -> Array:
    if step.tanh:
        curve: Array = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        from scipy.special import erf

        curve = erf(x / math.sqrt(2))
    return 0.5 * x * (1 + curve)


def _sigmoid(x: Array) -> Array:
    y: Array = 0.5 * (1 + np.tanh(x / 2))  # exp(-x) would overflow
    return y


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x + 3, 0, 6) / 6


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "hard-silu": lambda x: x * _hard_sigmoid(x),
    "hard-sigmoid": _hard_sigmoid,
}


@compute.register
def _(step: steps.Activation, x: Array) -> Array:
    return _ACTIVATIONS[step.function](x)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the softmax along an axis; subtracting the maximum first, it never overflows."""
    exponentials = np.exp(x - x.max(axis, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis, keepdims=True)
    return probabilities


@compute.register
def _(step: steps.Softmax, x: Array) -> Array:
    return softmax(x)


@compute.register
def _(step: steps.Exp, x: Array) -> Array:
    y: Array = np.exp(x)
    return y


@compute.register
def _(step: steps.MatMul, a: Array, b: Array) -> Array:
    product: Array = a @ (b.swapaxes(-1, -2) if step.transpose_b else b)
    return product


@compute.register
def _(step: steps.ConstantMatMul, x: Array) -> Array:
    product: Array = step.matrix @ x
    return product


@compute.register
def _(step: steps.Attention, x: Array) -> Array:
    def heads(projection: steps.Projection | None) -> Array:
        if projection is None:
            return x[:, None]  # (batch, 1, tokens, width), shared by all heads
        y = x @ projection.kernel + projection.bias
        return y.reshape(*x.shape[:2], step.heads, -1).swapaxes(1, 2)

    scores = step.scale * heads(step.query) @ heads(step.key).swapaxes(-1, -2)
    sums = softmax(scores) @ heads(step.value)
    concatenated = sums.swapaxes(1, 2).reshape(*x.shape[:2], -1)
    y: Array = concatenated @ step.out.kernel + step.out.bias
    return y


@compute.register
def _(step: steps.SequencePool, x: Array) -> Array:
    scores = x @ step.kernel + (0 if step.bias is None else step.bias)
    pooled: Array = np.einsum("bt,btw->bw", softmax(scores), x)
    return pooled
