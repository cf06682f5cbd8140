"""Convolutions, pools and padding: what works on windows of a feature map."""

from collections.abc import Callable, Sequence
from typing import Any

from cct_export.graph import steps
from cct_export.graph.lowering.builder import Builder, NotLowered, Tensor, constant, tensor
from cct_export.graph.steps import Array, Pads
from cct_export.graph.windows import same_pads

Pair = int | Sequence[int] | None


def check_channels_last(operation: Any) -> None:
    """Raises ``NotLowered`` for an operation on maps whose channels are first."""
    if operation.data_format not in (None, "channels_last"):
        raise NotLowered("its channels are first")


def _pair(value: Pair, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    if value is None:
        return default
    rows, columns = (value, value) if isinstance(value, int) else value
    return int(rows), int(columns)


def _pads(x: Tensor, size: Sequence[int], strides: Sequence[int], padding: str) -> Pads:
    if padding == "valid":
        return steps.NO_PADS
    if padding != "same":
        raise NotLowered(f"padding {padding!r}")
    rows, columns = map(same_pads, x.shape[:2], size, strides)
    return rows, columns


def convolution(
    builder: Builder, operation: Any, x: Any, kernel: Any, bias: Array | None = None
) -> Tensor:
    """Returns the convolution of maps by a layer or an operation, before its activation."""
    check_channels_last(operation)
    if _pair(operation.dilation_rate) != (1, 1):
        raise NotLowered("a dilated convolution")
    matrix, strides = constant(kernel), _pair(operation.strides)
    if len(tensor(x).shape) != 3 or matrix.ndim != 4:
        raise NotLowered("a convolution over other axes than rows and columns")
    if matrix.shape[2] != x.shape[2]:
        raise NotLowered(f"a convolution of {x.shape[2] // matrix.shape[2]} groups")
    pads = _pads(x, matrix.shape[:2], strides, operation.padding)
    fields: dict[str, Any] = {"kernel": matrix, "bias": bias, "strides": strides, "pads": pads}
    return builder.add(steps.Conv, x, relu=False, **fields)


def pooling(kind: Callable[..., steps.Step]) -> Callable[..., Tensor]:
    """Returns what lowers a layer or an operation that pools windows of maps."""

    def handler(builder: Builder, operation: Any, x: Any) -> Tensor:
        check_channels_last(operation)
        if len(tensor(x).shape) != 3:
            raise NotLowered("a pool over other axes than rows and columns")
        size = _pair(operation.pool_size)
        strides = _pair(operation.strides, size)
        pads = _pads(x, size, strides, operation.padding)
        return builder.add(kind, x, size=size, strides=strides, pads=pads)

    return handler


def pad(builder: Builder, operation: Any, x: Any, constant_values: Any = None) -> Tensor:
    """Lowers ``keras.ops.pad`` with zeros around maps."""
    widths = [tuple(each) for each in operation.pad_width]
    around = len(tensor(x).shape) == 3 and widths[0] == widths[3] == (0, 0)
    if operation.mode != "constant" or constant_values not in (None, 0) or not around:
        raise NotLowered("padding other than zeros around a map")
    return builder.add(steps.ZeroPad, x, pads=(widths[1], widths[2]))


def resize(builder: Builder, operation: Any, x: Tensor, size: Sequence[int]) -> Tensor:
    """Lowers bilinear resizing by a layer or an operation."""
    if x.shape[:2] == tuple(size):
        return x
    check_channels_last(operation)
    if operation.interpolation != "bilinear" or operation.antialias:
        kind = "antialiased " if operation.antialias else ""
        raise NotLowered(f"{kind}{operation.interpolation} resizing")
    if operation.crop_to_aspect_ratio or operation.pad_to_aspect_ratio:
        raise NotLowered("resizing that keeps the aspect ratio")
    return builder.add(steps.Resize, x, size=tuple(size))
