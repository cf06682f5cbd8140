"""The inference plan: a short list of typed steps on named tensors.

It is the intermediate representation between the Keras model and every file format.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.graph.steps import (
    Activation,
    Add,
    Array,
    AveragePool,
    Concat,
    Conv,
    Crop,
    Dense,
    Gather,
    GlobalPool,
    MaxPool,
    Mean,
    MeanSquare,
    Multiply,
    Reshape,
    Resize,
    Scale,
    Shape,
    Slice,
    Softmax,
    Step,
    Transpose,
    ZeroPad,
)

# Of values that are not negative they make values that are not negative.
_SIGN_KEEPING = (
    Add, AveragePool, Concat, Crop, Gather, GlobalPool, MaxPool, Mean, Multiply, Reshape, Resize,
    Scale, Slice, Transpose, ZeroPad,
)  # fmt: skip


def _narrowed(array: Array) -> Array:
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.array_equal(narrow, array) else array  # type: ignore[return-value]


def _is_rectified(step: Step) -> bool:
    if isinstance(step, Activation):
        return step.function in ("relu", "relu6", "sigmoid", "hard-sigmoid")
    return isinstance(step, Conv | Dense) and step.relu


def _is_square(step: Step) -> bool:
    return isinstance(step, Multiply) and len(set(step.inputs)) == 1


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in topological order.

    Attributes:
        image_shape: height, width, channels of the input, whose values are 0–255.
        steps: the last one produces the logits.
    """

    image_shape: ImageShape
    steps: tuple[Step, ...]

    INPUT = "image"

    @property
    def output(self) -> str:
        """The name of the logits."""
        return self.steps[-1].output

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor, without the batch axis."""
        shapes: dict[str, Shape] = {self.INPUT: self.image_shape}
        for step in self.steps:
            shapes[step.output] = step.shape(*(shapes[name] for name in step.inputs))
        return shapes

    def producer(self, name: str) -> Step | None:
        """Returns the step that produces a tensor, None for the image."""
        return next((step for step in self.steps if step.output == name), None)

    def consumers(self, name: str) -> list[Step]:
        """Returns the steps that consume a tensor."""
        return [step for step in self.steps if name in step.inputs]

    def macs(self, step: Step) -> int:
        """Returns the multiply-accumulate operations of a step for one image."""
        return step.macs(*(self.shapes[name] for name in step.inputs))

    @property
    def total_macs(self) -> int:
        """Multiply-accumulate operations for one image."""
        return sum(self.macs(step) for step in self.steps)

    @property
    def parameters(self) -> int:
        """The number of elements in all constants."""
        return sum(array.size for step in self.steps for array in step.arrays())

    def is_non_negative(self, name: str) -> bool:
        """Returns whether no value of a tensor can be negative, whatever the image."""
        step = self.producer(name)
        if step is None:
            return True  # pixels
        if isinstance(step, Softmax | MeanSquare) or _is_rectified(step) or _is_square(step):
            return True
        if isinstance(step, Scale) and (np.any(step.scale < 0) or np.any(step.shift < 0)):
            return False
        return isinstance(step, _SIGN_KEEPING) and all(map(self.is_non_negative, step.inputs))

    def only_consumer(self, name: str) -> Step | None:
        """Returns the consumer of a tensor if it has exactly one and is not the plan's output."""
        consumers = self.consumers(name)
        return consumers[0] if len(consumers) == 1 and name != self.output else None

    def replace(self, replacements: Mapping[str, Sequence[Step]]) -> "Plan":
        """Returns the plan with steps, by their output, replaced by any number of others."""
        steps = (replacements.get(step.output, (step,)) for step in self.steps)
        return Plan(self.image_shape, tuple(chain.from_iterable(steps)))

    def narrowed(self) -> "Plan":
        """Returns the plan with its constants as float32 where that changes no value.

        Weights of a model are float32: half the memory for a plan that is kept. Folds take it.
        """
        return self._with_arrays(_narrowed)

    def widened(self) -> "Plan":
        """Returns the plan with its constants as float64, in which folds compute."""
        return self._with_arrays(lambda array: array.astype(np.float64, copy=False))

    def _with_arrays(self, change: Callable[[Array], Array]) -> "Plan":
        return Plan(self.image_shape, tuple(step.with_arrays(change) for step in self.steps))

    def __str__(self) -> str:
        """Returns a table with one line per step: output, kind, shape, parameters, MACs."""
        lines = [f"{'step':34} {'kind':12} {'shape':>14} {'parameters':>11} {'MACs':>11}"]
        for step in self.steps:
            shape = "×".join(map(str, self.shapes[step.output]))
            size = sum(array.size for array in step.arrays())
            lines.append(
                f"{step.output:34} {step.kind:12} {shape:>14} {size:11,} {self.macs(step):11,}"
            )
        lines.append(f"{'':62} {self.parameters:11,} {self.total_macs:11,}")
        return "\n".join(lines)
