"""What the steps of an inference plan have in common."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cct_export.graph.windows import Shape

Array = NDArray[np.float64]


class Projection(NamedTuple):
    """A dense layer inside attention: ``x · kernel + bias``."""

    kernel: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of a plan.

    Attributes:
        output: name of the tensor that it produces, and of the step itself.
        inputs: names of the tensors that it consumes.
    """

    output: str
    inputs: tuple[str, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the output's shape, by default that of the first input."""
        return inputs[0]

    def macs(self, *inputs: Shape) -> int:
        """Returns the multiply-accumulate operations for one image, 0 by default."""
        return 0

    def arrays(self) -> Iterator[Array]:
        """Yields the constants of the step."""
        for field in fields(self):
            value = getattr(self, field.name)
            for part in value if isinstance(value, Projection) else (value,):
                if isinstance(part, np.ndarray):
                    yield part

    def with_arrays(self, change: Callable[[Array], Array]) -> Self:
        """Returns the step with its constants changed, each as ``change`` returns it."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Projection):
                changed[field.name] = Projection(*map(change, value))
            elif isinstance(value, np.ndarray):
                changed[field.name] = change(value)
        return replace(self, **changed) if changed else self

    @property
    def kind(self) -> str:
        """The name of the operation."""
        return type(self).__name__
