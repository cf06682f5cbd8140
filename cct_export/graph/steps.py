"""The steps of an inference plan, with float64 arrays.

Shapes leave the batch axis out: every tensor has it in front. Images and feature maps are
``(height, width, channels)``, tokens ``(tokens, width)``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = tuple[int, ...]
# Rows above and below, columns left and right.
Pads = tuple[tuple[int, int], tuple[int, int]]

NO_PADS: Pads = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Step:
    """What every step has.

    Attributes:
        output: the tensor it makes, which is also its name.
        inputs: the tensors it reads.
    """

    output: str
    inputs: tuple[str, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape of the output from those of the inputs; by default the first's."""
        return inputs[0]

    def macs(self, *inputs: Shape) -> int:
        """Returns the multiply-accumulates of products and convolutions, none by default."""
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
        """What it does, for people."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Scale(Step):
    """``scale · x + shift``; both ``(1,)`` or one value per channel."""

    scale: Array
    shift: Array


@dataclass(frozen=True, eq=False)
class Conv(Step):
    """A convolution of the zero-padded input, by default followed by ReLU.

    Attributes:
        kernel: ``(rows, columns, input channels, output channels)``.
        bias: one value per output channel, or None.
        strides: of rows and columns.
        pads: zeros around the input.
        relu: whether negative results become zero.
    """

    kernel: Array
    bias: Array | None = None
    strides: tuple[int, int] = (1, 1)
    pads: Pads = NO_PADS
    relu: bool = True

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(height, width, output channels)``."""
        rows, columns = windows(inputs[0], self.kernel.shape[:2], self.strides, self.pads)
        return (rows, columns, self.kernel.shape[3])

    def macs(self, *inputs: Shape) -> int:
        """Returns one for each weight and each place of the window."""
        rows, columns, _ = self.shape(*inputs)
        return rows * columns * self.kernel.size


@dataclass(frozen=True, eq=False)
class ZeroPad(Step):
    """Zeros around a feature map."""

    pads: Pads

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the larger map."""
        rows, columns, channels = inputs[0]
        return (rows + sum(self.pads[0]), columns + sum(self.pads[1]), channels)


@dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """The largest value of each window; what ``pads`` adds around the map never is."""

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads = NO_PADS

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the smaller map."""
        return (*windows(inputs[0], self.size, self.strides, self.pads), inputs[0][2])


@dataclass(frozen=True, eq=False)
class Reshape(Step):
    """The same values in the same order, in another shape."""

    to: Shape

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the new shape."""
        if math.prod(self.to) != math.prod(inputs[0]):
            raise ValueError(f"{self.output}: {inputs[0]} cannot become {self.to}")
        return self.to


@dataclass(frozen=True, eq=False)
class Transpose(Step):
    """Axes in another order; axis 0 is the first after the batch axis."""

    order: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the sizes in the new order."""
        return tuple(inputs[0][axis] for axis in self.order)


@dataclass(frozen=True, eq=False)
class Slice(Step):
    """The part of the last axis from ``start`` to before ``stop``."""

    start: int
    stop: int

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the narrower shape."""
        return (*inputs[0][:-1], self.stop - self.start)


@dataclass(frozen=True, eq=False)
class Add(Step):
    """The sum of two tensors of one shape."""


@dataclass(frozen=True, eq=False)
class AddConstant(Step):
    """The sum of a tensor and a constant that has its shape, or that of its last axes."""

    value: Array


@dataclass(frozen=True, eq=False)
class LayerNorm(Step):
    """Layer normalization: ``(x − mean) / sqrt(variance + epsilon) · gamma + beta``.

    Mean and variance are those of the last axis (arXiv:1607.06450). Without gamma it is 1, without
    beta it is 0. Where the input is ``centred`` its mean is 0, and need not be subtracted.
    """

    epsilon: float
    gamma: Array | None = None
    beta: Array | None = None
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Mean(Step):
    """The mean over the last axis, which stays, with size 1."""

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape with a last axis of 1."""
        return (*inputs[0][:-1], 1)


@dataclass(frozen=True, eq=False)
class MeanSquare(Mean):
    """The mean of the squares over the last axis, which stays, with size 1."""


@dataclass(frozen=True, eq=False)
class Subtract(Step):
    """The first tensor minus the second, which spreads over the last axis if that is 1."""


@dataclass(frozen=True, eq=False)
class Multiply(Step):
    """The product of two tensors, number by number; the second spreads like that of Subtract."""


@dataclass(frozen=True, eq=False)
class Rsqrt(Step):
    """``1 / sqrt(x + epsilon)``."""

    epsilon: float


@dataclass(frozen=True, eq=False)
class Dense(Step):
    """``x · kernel + bias``; the kernel is ``(input width, output width)``."""

    kernel: Array
    bias: Array | None = None

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the input's shape with the last axis of the output's width."""
        return (*inputs[0][:-1], self.kernel.shape[1])

    def macs(self, *inputs: Shape) -> int:
        """Returns one for each weight and each row."""
        return math.prod(inputs[0][:-1]) * self.kernel.size


@dataclass(frozen=True, eq=False)
class Gelu(Step):
    """``x · Φ(x)``, or its approximation by tanh (arXiv:1606.08415)."""

    tanh: bool


@dataclass(frozen=True, eq=False)
class Softmax(Step):
    """Softmax over the last axis."""


@dataclass(frozen=True, eq=False)
class MatMul(Step):
    """The product of two tensors over their last two axes, the second transposed if so said."""

    transpose_b: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(…, rows of a, columns of b)``."""
        a, b = inputs
        return (*a[:-1], b[-2] if self.transpose_b else b[-1])

    def macs(self, *inputs: Shape) -> int:
        """Returns rows × inner axis × columns, times the leading axes."""
        return math.prod(self.shape(*inputs)) * inputs[0][-1]


class Projection(NamedTuple):
    """A dense layer inside of attention: ``x · kernel + bias``."""

    kernel: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Attention(Step):
    """Multi-head self-attention of tokens (arXiv:1706.03762).

    For each head h: ``softmax(scale · q_h k_hᵀ) v_h``, all heads side by side through ``out``.

    Attributes:
        heads: number of heads; each has an equal part of a projection's columns.
        scale: what scores are multiplied with.
        query: tokens to the queries of all heads, ``(width, heads · size)``.
        key: the same for keys; None where every head's keys are the tokens themselves.
        value: the same for values; None where every head's values are the tokens themselves.
        out: ``(heads · size, width)``.
        fused: query, key and value are one product.
    """

    heads: int
    scale: float
    query: Projection
    key: Projection | None
    value: Projection | None
    out: Projection
    fused: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape of the tokens."""
        return (inputs[0][0], self.out.kernel.shape[1])

    def macs(self, *inputs: Shape) -> int:
        """Returns those of the projections, of the scores and of the weighted sums."""
        tokens = inputs[0][0]
        parts = (self.query, self.key, self.value, self.out)
        weights = sum(int(part.kernel.size) for part in parts if part is not None)
        # Scores take the width of all queries, weighted sums that of all values.
        widths = int(self.query.kernel.shape[1] + self.out.kernel.shape[0])
        return tokens * weights + tokens * tokens * widths


@dataclass(frozen=True, eq=False)
class SequencePool(Step):
    """The mean of the tokens, weighted by ``softmax(x · kernel + bias)`` over the tokens.

    Section 3.2 of arXiv:2104.05704. The kernel is ``(width,)``, the bias ``(1,)`` or None.
    """

    kernel: Array
    bias: Array | None = None

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(width,)``."""
        return inputs[0][1:]

    def macs(self, *inputs: Shape) -> int:
        """Returns those of the scores and of the weighted sum."""
        return 2 * math.prod(inputs[0])


def windows(shape: Shape, size: Sequence[int], strides: Sequence[int], pads: Pads) -> Shape:
    """Returns how many windows fit into the rows and the columns of a padded map."""
    return tuple(
        (axis + sum(pad) - window) // stride + 1
        for axis, window, stride, pad in zip(shape[:2], size, strides, pads, strict=True)
    )
