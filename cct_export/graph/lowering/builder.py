"""The plan that a lowering writes, step by step, and how Keras' axes map to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Shape, Step


class NotLowered(Exception):
    """Something that no step computes; the text says what, and in which layer once it is known.

    Attributes:
        located: whether the text names the layer.
    """

    def __init__(self, reason: str, located: bool = False) -> None:
        super().__init__(reason)
        self.located = located


@dataclass(frozen=True)
class Tensor:
    """A tensor of the plan.

    Attributes:
        name: of the step that produces it.
        shape: without the batch axis.
        batch_axis: where Keras has the batch axis; the plan has it first.
    """

    name: str
    shape: Shape
    batch_axis: int = 0

    @property
    def keras_shape(self) -> tuple[int, ...]:
        """The shape that Keras has for one image."""
        return (*self.shape[: self.batch_axis], 1, *self.shape[self.batch_axis :])

    def axis(self, keras_axis: int) -> int:
        """Returns the plan's axis for one of Keras; raises ``NotLowered`` for the batch axis."""
        axis = keras_axis % (len(self.shape) + 1)
        if axis == self.batch_axis:
            raise NotLowered("it computes across the images of a batch")
        return axis - (axis > self.batch_axis)

    def axes(self, keras_axes: int | Sequence[int]) -> tuple[int, ...]:
        """Returns the plan's axes for some of Keras, in ascending order."""
        each = (keras_axes,) if isinstance(keras_axes, int) else keras_axes
        return tuple(sorted(self.axis(axis) for axis in each))


# Before the number of a step whose name another has, until it is known which steps remain.
COUNTER = ":"
# What an operation of Keras consumes or produces: a tensor of the plan, or a constant.
Value = Tensor | Array
# Called with the steps so far, the operation or layer of Keras, and its arguments.
Handler = Callable[..., Value | Sequence[Value]]
# Called with a name for the steps, a function of Keras tensors, and its arguments.
Follow = Callable[..., Any]


def constant(value: Any) -> Array:
    """Returns a number, an array or a variable in float64."""
    return np.asarray(keras.ops.convert_to_numpy(value), np.float64)


def tensor(value: Any) -> Tensor:
    """Returns an argument that has to be a tensor whose batch axis is first."""
    if not isinstance(value, Tensor):
        raise NotLowered("it is given a constant")
    if value.batch_axis:
        raise NotLowered("the batch axis of its input is not the first")
    return value


class Builder:
    """The steps so far.

    Attributes:
        steps: by output.
        follow: lowers what a function of Keras tensors does, such as an activation.
    """

    def __init__(self, image_shape: ImageShape, follow: Follow) -> None:
        self.image = Tensor(Plan.INPUT, image_shape)
        self.steps: dict[str, Step] = {}
        self.follow = follow
        self._shapes: dict[str, Shape] = {Plan.INPUT: image_shape}
        self._scope: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """The name of the operation at work, after those of the layers that it is part of."""
        return "/".join(self._scope)

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Names steps after a layer or an operation."""
        outer = self._scope
        self._scope = (*outer, name) if name else outer
        try:
            yield
        finally:
            self._scope = outer

    def add(
        self, kind: Callable[..., Step], *inputs: Tensor, part: str = "", **fields: Any
    ) -> Tensor:
        """Appends a step that is named after the operation at work.

        Args:
            kind: its class.
            *inputs: what it consumes.
            part: what the step does of the operation, if others follow.
            **fields: of the class.
        """
        base = f"{self.scope}/{part}" if part else self.scope
        name, count = base, 0
        while name in self._shapes:
            count += 1
            name = f"{base}{COUNTER}{count}"
        step = kind(name, tuple(each.name for each in inputs), **fields)
        shape = step.shape(*(each.shape for each in inputs))
        self.steps[name], self._shapes[name] = step, shape
        return Tensor(name, shape)

    def input_of(self, step: Step) -> Tensor:
        """Returns the first input of a step."""
        return Tensor(step.inputs[0], self._shapes[step.inputs[0]])

    def reshape(self, x: Tensor, to: Sequence[int], part: str = "reshape") -> Tensor:
        """Returns the same values in row-major order, without a step where nothing changes."""
        step = self.steps.get(x.name)
        if isinstance(step, steps.Reshape) and x.shape != tuple(to):
            x = self.input_of(step)
        return x if x.shape == tuple(to) else self.add(steps.Reshape, x, part=part, to=tuple(to))

    def transpose(self, x: Tensor, order: Sequence[int], part: str = "transpose") -> Tensor:
        """Returns the permuted axes; where only axes of size 1 move, a reshape does it."""
        step = self.steps.get(x.name)
        if isinstance(step, steps.Transpose):
            x, order = self.input_of(step), [step.order[axis] for axis in order]
        large = [axis for axis in order if x.shape[axis] != 1]
        if large == sorted(large):
            return self.reshape(x, [x.shape[axis] for axis in order], part)
        return self.add(steps.Transpose, x, part=part, order=tuple(order))

    def moved(self, x: Tensor, axis: int, to: int) -> Tensor:
        """Returns the tensor with one axis moved."""
        order = [each for each in range(len(x.shape)) if each != axis]
        order.insert(to, axis)
        return self.transpose(x, order)

    def select(self, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
        """Returns the elements ``[start, stop)`` of an axis."""
        if (start, stop) == (0, x.shape[axis]):
            return x
        last = len(x.shape) - 1
        y = self.moved(x, axis, last)
        y = self.add(steps.Slice, y, part="slice", start=start, stop=stop)
        return self.moved(y, last, axis)

    def affine(self, x: Tensor, scale: Array, shift: Array) -> Tensor:
        """Returns ``scale · x + shift``, in one step with an affine step before it.

        Args:
            x: any tensor.
            scale: ``(1,)``, or one value per channel.
            shift: as ``scale``.
        """
        before = self.steps.get(x.name)
        if isinstance(before, steps.Scale):
            shift = scale * before.shift + shift
            x, scale = self.input_of(before), scale * before.scale
        elif isinstance(before, steps.AddConstant) and before.value.ndim == 1:
            x, shift = self.input_of(before), scale * before.value + shift
        if np.any(scale != 1) or len(x.shape) == 3:
            if not np.any(shift):
                shift = np.zeros(1)
            if np.all(scale == 1) and not np.any(shift):
                return x
            return self.add(steps.Scale, x, scale=scale, shift=shift)
        return self.add(steps.AddConstant, x, value=shift) if np.any(shift) else x

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        """Returns the softmax over an axis of the plan."""
        last = len(x.shape) - 1
        y = self.add(steps.Softmax, self.moved(x, axis, last))
        return self.moved(y, last, axis)

    def pooled(
        self,
        x: Tensor,
        axes: Sequence[int],
        keepdims: bool = False,
        maximum: bool = False,
        factor: float = 1.0,
    ) -> Tensor:
        """Returns the mean, or the maximum, over axes of the plan, times a factor."""
        rank = len(x.shape)
        kept = [axis for axis in range(rank) if axis not in axes]
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        out = shape if keepdims else [x.shape[axis] for axis in kept]
        if tuple(axes) == (rank - 1,) and keepdims and not maximum:
            return self.affine(self.add(steps.Mean, x), np.full(1, factor), np.zeros(1))
        y = self.transpose(x, [*axes, *kept])
        if len(kept) != 1:
            width = int(np.prod([x.shape[axis] for axis in kept]))
            y = self.reshape(y, (int(np.prod(x.shape)) // width, width))
        y = self.add(steps.GlobalPool, y, maximum=maximum)
        return self.reshape(self.affine(y, np.full(1, factor), np.zeros(1)), out)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the matrix product over the last two axes; all axes before are equal."""
        if len(a.shape) < 2 or a.shape[:-2] != b.shape[:-2]:
            raise NotLowered(f"it multiplies {_text(a.shape)} and {_text(b.shape)}")
        before = self.steps.get(b.name)
        if isinstance(before, steps.Transpose) and before.order[-1] < before.order[-2]:
            rank = len(b.shape)
            return self.add(steps.MatMul, a, self.moved(b, rank - 1, rank - 2), transpose_b=True)
        return self.add(steps.MatMul, a, b)

    def plan(self, output: Tensor) -> Plan:
        """Returns the plan of the steps that a tensor needs.

        Raises:
            NotLowered: it is the image itself.
        """
        if output.name not in self.steps:
            raise NotLowered("the model computes nothing", located=True)
        needed: set[str] = {output.name}
        for step in reversed(self.steps.values()):
            if step.output in needed:
                needed.update(step.inputs)
        kept = tuple(step for step in self.steps.values() if step.output in needed)
        return Plan(self.image.shape, kept)  # type: ignore[arg-type]


def with_batch_axis(x: Tensor, axis: int) -> Tensor:
    """Returns the tensor as Keras has it with the batch axis elsewhere."""
    return replace(x, batch_axis=axis)


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))
