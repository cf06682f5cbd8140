"""The windows of convolutions and pools on a padded feature map."""

from collections.abc import Sequence

Shape = tuple[int, ...]
# Rows above and below, columns left and right.
Pads = tuple[tuple[int, int], tuple[int, int]]


def window_counts(shape: Shape, size: Sequence[int], strides: Sequence[int], pads: Pads) -> Shape:
    """Returns how many windows fit vertically and horizontally into a padded feature map."""
    return tuple(
        (axis + sum(pad) - window) // stride + 1
        for axis, window, stride, pad in zip(shape[:2], size, strides, pads, strict=True)
    )


def same_pads(size: int, window: int, stride: int) -> tuple[int, int]:
    """Returns the padding before and after an axis of ``size`` by TensorFlow's SAME rule."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
