"""Arithmetic on each value of a tensor, with constants and other tensors."""

import numpy as np

from cct_export.graph import steps
from cct_export.graph.lowering.builder import (
    Builder,
    NotLowered,
    Tensor,
    Value,
    with_batch_axis,
)
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array

_ONE, _ZERO = np.ones(1), np.zeros(1)


def plus(builder: Builder, a: Value, b: Value) -> Tensor:
    """Returns ``a + b``."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        _check_layouts(a, b)
        if a.shape != b.shape:
            raise NotLowered(f"it adds tensors of the shapes {a.shape} and {b.shape}")
        return with_batch_axis(builder.add(steps.Add, a, b), a.batch_axis)
    x, array = _operands(a, b)
    if _is_per_channel(array):
        y = builder.affine(x, _ONE, array.reshape(-1))
    else:
        first = next(axis for axis, size in enumerate(array.shape) if size != 1)
        value = np.broadcast_to(array, (*array.shape[:first], *x.shape[first:]))
        y = builder.add(steps.AddConstant, x, value=value.reshape(x.shape[first:]))
    return with_batch_axis(y, x.batch_axis)


def times(builder: Builder, a: Value, b: Value) -> Tensor:
    """Returns ``a · b``."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        _check_layouts(a, b)
        for x, y in ((a, b), (b, a)):
            if y.shape in (x.shape, (*x.shape[:-1], 1)):
                return with_batch_axis(builder.add(steps.Multiply, x, y), x.batch_axis)
        raise NotLowered(f"it multiplies tensors of the shapes {a.shape} and {b.shape}")
    x, array = _operands(a, b)
    if not _is_per_channel(array):
        raise NotLowered("it multiplies by a constant of more than one value per channel")
    return with_batch_axis(builder.affine(x, array.reshape(-1), _ZERO), x.batch_axis)


def minus(builder: Builder, a: Value, b: Value) -> Tensor:
    """Returns ``a − b``."""
    if isinstance(b, Tensor):
        if not isinstance(a, Tensor):
            return plus(builder, times(builder, b, -_ONE), a)
        _check_layouts(a, b)
        if b.shape in (a.shape, (*a.shape[:-1], 1)):
            return with_batch_axis(builder.add(steps.Subtract, a, b), a.batch_axis)
        raise NotLowered(f"it subtracts tensors of the shapes {a.shape} and {b.shape}")
    return plus(builder, a, -b)


def divide(builder: Builder, a: Value, b: Value) -> Tensor:
    """Returns ``a / b``, where b is a constant or a square root."""
    if not isinstance(b, Tensor):
        return times(builder, a, 1 / b)
    root = builder.steps.get(b.name)
    if isinstance(root, steps.Multiply):
        inverse = builder.steps.get(root.inputs[1])
        if isinstance(inverse, steps.Rsqrt) and inverse.inputs == root.inputs[:1]:
            return times(builder, a, Tensor(inverse.output, b.shape, b.batch_axis))
    raise NotLowered("it divides by a tensor")


def inverse_root(builder: Builder, x: Tensor) -> Tensor:
    """Returns ``1 / sqrt(x)``, with a number that was added to x as its epsilon."""
    before = builder.steps.get(x.name)
    epsilon = 0.0
    if isinstance(before, steps.AddConstant) and before.value.size == 1:
        x, epsilon = builder.input_of(before), float(before.value.item())
    return builder.add(steps.Rsqrt, x, part="inverse", epsilon=epsilon)


def root(builder: Builder, x: Tensor) -> Tensor:
    """Returns ``sqrt(x)`` as ``x / sqrt(x)``, for values that are above 0 in any image."""
    before = builder.steps.get(x.name)
    raised = isinstance(before, steps.AddConstant) and bool(np.all(before.value > 0))
    if isinstance(before, steps.Scale):
        raised = bool(np.all(before.scale >= 0) and np.all(before.shift > 0))
    so_far = Plan(builder.image.shape, tuple(builder.steps.values()))  # type: ignore[arg-type]
    if before is None or not raised or not so_far.is_non_negative(before.inputs[0]):
        raise NotLowered("the square root of values that may be 0 in some image")
    return builder.add(steps.Multiply, x, builder.add(steps.Rsqrt, x, part="inverse", epsilon=0.0))


def _check_layouts(a: Tensor, b: Tensor) -> None:
    if a.batch_axis != b.batch_axis or len(a.shape) != len(b.shape):
        raise NotLowered("its inputs have different axes")


def _operands(a: Value, b: Value) -> tuple[Tensor, Array]:
    """Returns the tensor of two operands, and the constant with as many axes."""
    x, array = (a, b) if isinstance(a, Tensor) else (b, a)
    if not isinstance(x, Tensor) or isinstance(array, Tensor):
        raise NotLowered("it is given constants")
    rank = len(x.shape) + 1
    array = array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim < rank else array
    if array.ndim > rank:
        raise NotLowered("it is given a constant with more axes than its input")
    images = np.moveaxis(array, x.batch_axis, 0)
    if not np.all(images == images[:1]):
        raise NotLowered("it treats the images of a batch differently")
    if any(size not in (1, axis) for size, axis in zip(images.shape[1:], x.shape, strict=True)):
        raise NotLowered("it is given a constant of another shape than its input")
    return x, images[0]


def _is_per_channel(array: Array) -> bool:
    return bool(array.size == array.shape[-1]) if array.ndim else True
