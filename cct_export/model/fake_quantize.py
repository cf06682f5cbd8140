"""Fake quantization: training with the rounding that integers bring (arXiv:1806.08342).

Layers pass what an ``int8-full`` file holds in 8 bits through ``fake_quantized``. That is the
identity, and adds no operation, but inside ``fake_quantization(True)``. Ranges are those of the
batch: there is no state, and a model that was trained so is an ordinary one.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from keras import ops

# Multiples of the scale between the ends of a range. Each end rounds by itself: with 255 there
# could be 257 values.
_STEPS = 254
# Smallest width of a range: that of zeros alone has none, and what is smaller counts as 0.
_TINY = 1e-30

_on: ContextVar[bool] = ContextVar("fake_quantization", default=False)


@contextlib.contextmanager
def fake_quantization(on: bool) -> Iterator[None]:
    """Turns fake quantization on or off for the layers that are called in the block.

    Where a step is compiled, that is while it is traced.

    Args:
        on: whether ``fake_quantized`` rounds.

    Example:
        >>> with fake_quantization(True):
        ...     logits = model(images, training=True)
    """
    token = _on.set(on)
    try:
        yield
    finally:
        _on.reset(token)


def is_on() -> bool:
    """Tells whether ``fake_quantized`` rounds."""
    return _on.get()


def fake_quantized(x: Any) -> Any:
    """Returns activations rounded to 8 bits, or as they are where fake quantization is off.

    The range goes from the smallest to the largest value of the batch, and holds 0. Rounding
    passes gradients on as if it were the identity, and to both ends of the range what rounding
    costs: with another scale ``s`` the value would move by ``round(x / s) − x / s``
    (arXiv:1902.08153).

    Args:
        x: a floating-point tensor of any shape; rounded in float32.

    Returns:
        A tensor of the same shape and dtype, with at most 256 different values.
    """
    if not is_on():
        return x
    values = ops.cast(x, "float32")
    low, high = ops.minimum(ops.min(values), 0.0), ops.maximum(ops.max(values), 0.0)
    scale = ops.maximum(high - low, _TINY) / _STEPS
    multiples = values / scale
    rounding = ops.stop_gradient(ops.round(multiples) - multiples)
    return ops.cast(values + scale * rounding, x.dtype)
