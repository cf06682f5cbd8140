"""The inference plan: a short list of typed steps on named tensors.

A plan says what is computed, on what and in which order, for one image; every format is written
from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from cct_export.graph.steps import Shape, Step


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in an order in which they can be computed.

    Attributes:
        image_shape: height, width, channels of the input, whose values are 0–255.
        steps: what is computed; the last makes the logits.
    """

    image_shape: Shape
    steps: tuple[Step, ...]

    INPUT = "image"

    @property
    def output(self) -> str:
        """The name of the logits."""
        return self.steps[-1].output

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor, without the batch axis."""
        found = {self.INPUT: self.image_shape}
        for step in self.steps:
            found[step.output] = step.shape(*(found[name] for name in step.inputs))
        return found

    def producer(self, name: str) -> Step | None:
        """Returns the step that makes a tensor, None for the image."""
        return next((step for step in self.steps if step.output == name), None)

    def consumers(self, name: str) -> list[Step]:
        """Returns the steps that read a tensor."""
        return [step for step in self.steps if name in step.inputs]

    def macs(self, step: Step) -> int:
        """Returns the multiply-accumulates of a step for one image."""
        return step.macs(*(self.shapes[name] for name in step.inputs))

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(self.macs(step) for step in self.steps)

    @property
    def parameters(self) -> int:
        """Numbers in all arrays."""
        return sum(array.size for step in self.steps for array in step.arrays())

    def only_consumer(self, name: str) -> Step | None:
        """Returns the step that reads a tensor if it is one step, and the tensor not the result."""
        readers = self.consumers(name)
        return readers[0] if len(readers) == 1 and name != self.output else None

    def replace(self, changed: Mapping[str, Sequence[Step]]) -> "Plan":
        """Returns the plan with the steps of these outputs replaced by others, or by none."""
        steps = (changed.get(step.output, (step,)) for step in self.steps)
        return Plan(self.image_shape, tuple(chain.from_iterable(steps)))

    def __str__(self) -> str:
        """Returns a line per step: output, kind, shape, parameters, multiply-accumulates."""
        lines = [f"{'step':34} {'kind':12} {'shape':>14} {'parameters':>11} {'MACs':>11}"]
        for step in self.steps:
            shape = "×".join(map(str, self.shapes[step.output]))
            size = sum(array.size for array in step.arrays())
            lines.append(
                f"{step.output:34} {step.kind:12} {shape:>14} {size:11,} {self.macs(step):11,}"
            )
        lines.append(f"{'':62} {self.parameters:11,} {self.total_macs:11,}")
        return "\n".join(lines)
