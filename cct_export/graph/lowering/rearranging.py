"""Operations that only move values: shapes, axes and parts of tensors."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from cct_export.graph import steps
from cct_export.graph.lowering.builder import (
    Builder,
    Handler,
    NotLowered,
    Tensor,
    Value,
    constant,
    tensor,
    with_batch_axis,
)


def _reshape(builder: Builder, operation: Any, x: Any, *arguments: Any) -> Tensor:
    return reshaped(builder, tensor(x), operation.newshape)


def reshaped(builder: Builder, x: Tensor, shape: Sequence[int | None]) -> Tensor:
    """Returns a tensor in the shape that Keras has, with the batch axis; one size may be unknown.

    Raises:
        NotLowered: it mixes the images of a batch.
    """
    size = math.prod(x.shape)
    rest = list(shape[1:])
    unknown = [axis for axis, each in enumerate(rest) if each in (None, -1)]
    known = math.prod(each for each in rest if each not in (None, -1))
    if len(unknown) == 1 and known and size % known == 0:
        rest[unknown[0]] = size // known
    if math.prod(each or -1 for each in rest) != size:
        raise NotLowered("a reshape that mixes the images of a batch")
    return builder.reshape(x, [int(each or 1) for each in rest], part="")


def _transpose(builder: Builder, operation: Any, x: Tensor) -> Tensor:
    order = operation.axes or range(len(x.shape), -1, -1)
    return _permuted(builder, x, list(order))


def _swapaxes(builder: Builder, operation: Any, x: Tensor) -> Tensor:
    order = list(range(len(x.shape) + 1))
    a, b = operation.axis1, operation.axis2
    order[a], order[b] = order[b], order[a]
    return _permuted(builder, x, order)


def _moveaxis(builder: Builder, operation: Any, x: Tensor) -> Tensor:
    rank = len(x.shape) + 1
    pairs = zip(operation.destination, operation.source, strict=True)
    moves = sorted((to % rank, axis % rank) for to, axis in pairs)
    order = [axis for axis in range(rank) if axis not in [source for _, source in moves]]
    for to, axis in moves:
        order.insert(to, axis)
    return _permuted(builder, x, order)


def _permuted(builder: Builder, x: Tensor, order: Sequence[int]) -> Tensor:
    rank = len(x.shape) + 1
    order = [axis % rank for axis in order]
    plan_order = [axis - (axis > x.batch_axis) for axis in order if axis != x.batch_axis]
    return with_batch_axis(builder.transpose(x, plan_order, part=""), order.index(x.batch_axis))


def _squeeze(builder: Builder, operation: Any, x: Tensor) -> Tensor:
    if operation.axis is None:
        raise NotLowered("squeeze of all axes, the batch axis among them")
    axes = x.axes(operation.axis)
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
    axis = x.batch_axis - sum(each < x.batch_axis for each in axes)
    return with_batch_axis(builder.reshape(x, shape, part=""), axis)


def _expand_dims(builder: Builder, operation: Any, x: Tensor) -> Tensor:
    axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
    rank = len(x.keras_shape) + len(axes)
    added = {axis % rank for axis in axes}
    sizes = iter([*x.shape[: x.batch_axis], None, *x.shape[x.batch_axis :]])
    shape = [1 if axis in added else next(sizes) for axis in range(rank)]
    axis = shape.index(None)
    return with_batch_axis(
        builder.reshape(x, [size for size in shape if size is not None], part=""), axis
    )


def _broadcast_to(builder: Builder, operation: Any, x: Any) -> Any:
    shape = tuple(operation.shape)
    if tuple(x.keras_shape[1:]) != shape[1:]:
        raise NotLowered("it repeats values")
    return x


def _unstack(builder: Builder, operation: Any, x: Tensor) -> list[Tensor]:
    axis = x.axis(operation.axis)
    parts = [builder.select(x, axis, index, index + 1) for index in range(x.shape[axis])]
    return [_without(builder, with_batch_axis(part, x.batch_axis), axis) for part in parts]


def _split(builder: Builder, operation: Any, x: Tensor) -> list[Tensor]:
    axis, parts = x.axis(operation.axis), operation.indices_or_sections
    size = x.shape[axis]
    bounds = range(0, size, size // parts) if isinstance(parts, int) else (0, *parts)
    pairs = zip(bounds, (*bounds[1:], size), strict=True)
    selected = [builder.select(x, axis, *pair) for pair in pairs]
    return [with_batch_axis(each, x.batch_axis) for each in selected]


def _getitem(builder: Builder, operation: Any, x: Tensor, key: Any) -> Tensor:
    keys = list(key) if isinstance(key, tuple | list) else [key]
    rank = len(x.shape) + 1
    if not all(each is Ellipsis or isinstance(each, int | slice) for each in keys):
        raise NotLowered("an index that is no number and no slice")
    missing = rank - sum(each is not Ellipsis for each in keys)
    where = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys[where : where + 1] = [slice(None)] * missing
    if keys[x.batch_axis] != slice(None):
        raise NotLowered("it takes a part of the batch")
    dropped = []
    y = x
    for keras_axis, each in enumerate(keys):
        if each == slice(None):
            continue
        axis = x.axis(keras_axis)
        y = with_batch_axis(_part(builder, y, axis, each), x.batch_axis)
        if isinstance(each, int):
            dropped.append(axis)
    for axis in reversed(dropped):
        y = _without(builder, y, axis)
    return y


def _part(builder: Builder, x: Tensor, axis: int, key: int | slice) -> Tensor:
    """Returns some elements of an axis, which stays."""
    indices = range(x.shape[axis])[key]
    if isinstance(indices, int):
        return builder.select(x, axis, indices, indices + 1)
    if indices.step == 1 and indices:
        return builder.select(x, axis, indices.start, indices.stop)
    return _gather(builder, x, axis, indices)


def _gather(builder: Builder, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    if axis != len(x.shape) - 1 or not indices:
        raise NotLowered("it takes some elements of an axis that is not the last")
    return builder.add(steps.Gather, x, order=tuple(int(index) for index in indices))


def _without(builder: Builder, x: Tensor, axis: int) -> Tensor:
    """Returns the tensor without an axis of size 1."""
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return with_batch_axis(builder.reshape(x, shape, part=""), x.batch_axis - (axis < x.batch_axis))


def _take(builder: Builder, operation: Any, x: Tensor, indices: Any) -> Tensor:
    if operation.axis is None:
        raise NotLowered("it takes elements across the images of a batch")
    axis = x.axis(operation.axis)
    chosen = np.asarray(keras.ops.convert_to_numpy(indices)) % x.shape[axis]
    if chosen.ndim > 1:
        raise NotLowered("it takes elements in another shape")
    first = int(chosen.min(initial=0)) if chosen.ndim == 0 else int(chosen[0])
    if chosen.ndim == 0:
        y = builder.select(x, axis, int(chosen), int(chosen) + 1)
        return _without(builder, with_batch_axis(y, x.batch_axis), axis)
    if list(chosen) == list(range(first, first + len(chosen))):
        y = builder.select(x, axis, first, first + len(chosen))
    else:
        y = _gather(builder, x, axis, list(chosen))
    return with_batch_axis(y, x.batch_axis)


def _flip(builder: Builder, operation: Any, x: Tensor) -> Tensor:
    axis = x.axes(operation.axis) if operation.axis is not None else ()
    if len(axis) != 1:
        raise NotLowered("it flips several axes")
    return _gather(builder, tensor(x), axis[0], range(x.shape[axis[0]] - 1, -1, -1))


def _stack(builder: Builder, operation: Any, parts: Sequence[Tensor]) -> Tensor:
    rank = len(tensor(parts[0]).keras_shape)
    if operation.axis not in (-1, rank):
        raise NotLowered("it stacks tensors along another axis than the last")
    return _gathered(builder, [builder.reshape(tensor(part), (*part.shape, 1)) for part in parts])


def _concatenate(builder: Builder, operation: Any, parts: Sequence[Value]) -> Tensor:
    tensors = [each for each in parts if isinstance(each, Tensor)]
    if len(tensors) == 1:
        return _between_constants(builder, operation.axis, tensors[0], parts)
    if tensor(parts[0]).axis(operation.axis) != len(tensor(parts[0]).shape) - 1:
        raise NotLowered("it joins tensors along another axis than the last")
    return _gathered(builder, parts)


def _between_constants(
    builder: Builder, keras_axis: int, x: Tensor, parts: Sequence[Value]
) -> Tensor:
    """Returns a tensor with constants around it, such as a class token before all others.

    It is padded with zeros, to which the constants are added.
    """
    axis, rank = tensor(x).axis(keras_axis), len(x.shape)
    if axis == rank - 1 or rank > 3:
        raise NotLowered("it joins a tensor and constants along its last axis")
    arrays = [np.zeros((1, *x.shape)) if each is x else constant(each) for each in parts]
    sizes = [array.shape[axis + 1] for array in arrays]
    place = [each is x for each in parts].index(True)
    pads = [(0, 0), (0, 0)]
    pads[axis] = (sum(sizes[:place]), sum(sizes[place + 1 :]))
    maps = x if rank == 3 else builder.reshape(x, (x.shape[0], 1, x.shape[1]))
    y = builder.add(steps.ZeroPad, maps, part="pad", pads=tuple(pads))
    value = np.concatenate(arrays, axis=axis + 1)[0]
    return builder.add(steps.AddConstant, builder.reshape(y, value.shape), value=value)


def _gathered(builder: Builder, parts: Sequence[Value]) -> Tensor:
    """Returns the channels that slices took of one tensor, one after the other."""
    sources: set[tuple[str, ...]] = set()
    order: list[int] = []
    for part in parts:
        step = builder.steps.get(tensor(part).name)
        if not isinstance(step, steps.Slice):
            raise NotLowered("it joins tensors")
        sources.add(step.inputs)
        order += range(step.start, step.stop)
        source = builder.input_of(step)
    if len(sources) != 1:
        raise NotLowered("it joins parts of different tensors")
    return _gather(builder, source, len(source.shape) - 1, order)


def _slice(builder: Builder, operation: Any, x: Tensor, starts: Any) -> Tensor:
    y, sizes = tensor(x), operation.shape
    for axis, start in enumerate(int(each) for each in starts[1:]):
        y = builder.select(y, axis, start, start + sizes[axis + 1])
    return y


OPERATIONS: dict[str, Handler] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Swapaxes": _swapaxes,
    "Moveaxis": _moveaxis,
    "Squeeze": _squeeze,
    "ExpandDims": _expand_dims,
    "BroadcastTo": _broadcast_to,
    "Stack": _stack,
    "Concatenate": _concatenate,
    "Unstack": _unstack,
    "Split": _split,
    "GetItem": _getitem,
    "Take": _take,
    "Flip": _flip,
    "Slice": _slice,
}
