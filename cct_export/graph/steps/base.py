"""What the steps of an inference plan have in common."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

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

    @property
    def kind(self) -> str:
        """The name of the operation."""
        return type(self).__name__
