"""The steps of an inference plan that only move values."""

import math
from dataclasses import dataclass

from cct_export.graph.steps.base import Step
from cct_export.graph.windows import Shape


@dataclass(frozen=True, eq=False)
class Gather(Step):
    """The channels ``order`` of the last axis, such as blue, green, red."""

    order: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape with ``order`` channels."""
        return (*inputs[0][:-1], len(self.order))


@dataclass(frozen=True, eq=False)
class Reshape(Step):
    """The same values in row-major order, in another shape."""

    to: Shape

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the new shape."""
        if math.prod(self.to) != math.prod(inputs[0]):
            raise ValueError(f"{self.output}: {inputs[0]} cannot become {self.to}")
        return self.to


@dataclass(frozen=True, eq=False)
class Transpose(Step):
    """A permutation of the axes; axis 0 is the first after the batch axis."""

    order: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the permuted shape."""
        return tuple(inputs[0][axis] for axis in self.order)


@dataclass(frozen=True, eq=False)
class Slice(Step):
    """The elements ``[start, stop)`` of the last axis."""

    start: int
    stop: int

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape with ``stop − start`` as the last axis."""
        return (*inputs[0][:-1], self.stop - self.start)


@dataclass(frozen=True, eq=False)
class Crop(Step):
    """The elements ``[start, stop)`` of every axis.

    Attributes:
        starts: the first element, by axis.
        stops: one past the last element, by axis.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``stop − start`` by axis."""
        return tuple(stop - start for start, stop in zip(self.starts, self.stops, strict=True))


@dataclass(frozen=True, eq=False)
class Concat(Step):
    """Several tensors side by side along the last axis."""

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape with the sum of the last axes."""
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))
