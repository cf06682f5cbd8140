"""The order of the axes of an image input: NHWC, or NCHW with the channels first."""

from collections.abc import Sequence
from typing import TypeVar

NHWC, NCHW = "NHWC", "NCHW"
# Grey and RGB.
_CHANNELS = (1, 3)
Size = TypeVar("Size")


def layout_of(shape: Sequence[int | None]) -> str:
    """Returns the layout of an image input: NCHW if only its second axis can be the channels.

    Args:
        shape: sizes of the axes, the batch first; None for an open one.
    """
    is_first = len(shape) == 4 and shape[1] in _CHANNELS and shape[3] not in _CHANNELS
    return NCHW if is_first else NHWC


def in_layout(image_shape: tuple[Size, ...], layout: str) -> tuple[Size, ...]:
    """Returns height, width and channels in the order of ``layout``."""
    return image_shape[-1:] + image_shape[:-1] if layout == NCHW else image_shape


def image_shape_of(shape: Sequence[Size], layout: str) -> tuple[Size, Size, Size]:
    """Returns height, width and channels of an image input of four axes.

    Args:
        shape: sizes of the axes, the batch first.
        layout: their order.
    """
    _, first, second, third = shape
    return (second, third, first) if layout == NCHW else (first, second, third)
