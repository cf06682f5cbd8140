"""The steps of an inference plan that compute values."""

import math
from dataclasses import dataclass

from cct_export.graph.steps.base import Array, Projection, Step
from cct_export.graph.windows import Pads, Shape, window_counts

NO_PADS: Pads = ((0, 0), (0, 0))
# Beside GELU. silu is x · sigmoid(x) (arXiv:1702.03118); hard-silu x · relu6(x + 3) / 6 and
# hard-sigmoid relu6(x + 3) / 6 approximate it and the sigmoid (arXiv:1905.02244).
ACTIVATIONS = ("relu", "relu6", "silu", "sigmoid", "tanh", "hard-silu", "hard-sigmoid")


@dataclass(frozen=True, eq=False)
class Scale(Step):
    """``scale · x + shift``; both are ``(1,)``, one value per channel, or one per value."""

    scale: Array
    shift: Array


@dataclass(frozen=True, eq=False)
class Conv(Step):
    """A 2-D convolution of the zero-padded input, by default followed by ReLU.

    Attributes:
        kernel: ``(rows, columns, input channels, output channels)``.
        bias: one value per output channel, or None.
        strides: vertical and horizontal stride.
        pads: zero padding around the input.
        relu: whether ReLU follows.
        ceiling: the largest value that ReLU lets through: 6 for ReLU6.
    """

    kernel: Array
    bias: Array | None = None
    strides: tuple[int, int] = (1, 1)
    pads: Pads = NO_PADS
    relu: bool = True
    ceiling: float = math.inf

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(height, width, output channels)``."""
        rows, columns = window_counts(inputs[0], self.kernel.shape[:2], self.strides, self.pads)
        return (rows, columns, self.kernel.shape[3])

    def macs(self, *inputs: Shape) -> int:
        """Returns one per weight and output position."""
        rows, columns, _ = self.shape(*inputs)
        return rows * columns * self.kernel.size


@dataclass(frozen=True, eq=False)
class ZeroPad(Step):
    """Zero padding around a feature map."""

    pads: Pads

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the padded ``(height, width, channels)``."""
        rows, columns, channels = inputs[0]
        return (rows + sum(self.pads[0]), columns + sum(self.pads[1]), channels)


@dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """Max pooling; padding counts as −∞."""

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads = NO_PADS

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the pooled ``(height, width, channels)``."""
        return (*window_counts(inputs[0], self.size, self.strides, self.pads), inputs[0][2])


@dataclass(frozen=True, eq=False)
class AveragePool(Step):
    """Average pooling; padding does not count."""

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads = NO_PADS

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the pooled ``(height, width, channels)``."""
        return (*window_counts(inputs[0], self.size, self.strides, self.pads), inputs[0][2])


@dataclass(frozen=True, eq=False)
class GlobalPool(Step):
    """The mean, or the maximum, over all axes but the last, such as over all tokens."""

    maximum: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(channels,)``."""
        return inputs[0][-1:]


@dataclass(frozen=True, eq=False)
class Resize(Step):
    """A feature map in another size, by bilinear interpolation between the centres of pixels."""

    size: tuple[int, int]

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(height, width, channels)``."""
        return (*self.size, inputs[0][2])


@dataclass(frozen=True, eq=False)
class Add(Step):
    """The sum of two tensors of the same shape."""


@dataclass(frozen=True, eq=False)
class AddConstant(Step):
    """The sum of a tensor and a constant, which broadcasts over leading axes."""

    value: Array


@dataclass(frozen=True, eq=False)
class LayerNorm(Step):
    """Layer normalization: ``(x − mean) / sqrt(variance + epsilon) · gamma + beta``.

    Mean and variance are taken over the last axis (arXiv:1607.06450). A missing gamma is 1, a
    missing beta 0. The mean of a ``centred`` input is 0 and need not be subtracted.
    """

    epsilon: float
    gamma: Array | None = None
    beta: Array | None = None
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Mean(Step):
    """The mean over the last axis, which is kept with size 1."""

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the shape with a last axis of 1."""
        return (*inputs[0][:-1], 1)


@dataclass(frozen=True, eq=False)
class MeanSquare(Mean):
    """The mean of squares over the last axis, which is kept with size 1."""


@dataclass(frozen=True, eq=False)
class Maximum(Mean):
    """The largest value over the last axis, which is kept with size 1."""


@dataclass(frozen=True, eq=False)
class Subtract(Step):
    """The first tensor minus the second, which broadcasts over the last axis if its size is 1."""


@dataclass(frozen=True, eq=False)
class Multiply(Step):
    """The elementwise product of two tensors; the second broadcasts as in Subtract."""


@dataclass(frozen=True, eq=False)
class Rsqrt(Step):
    """``1 / sqrt(x + epsilon)``."""

    epsilon: float


@dataclass(frozen=True, eq=False)
class Dense(Step):
    """``x · kernel + bias``, if ``relu`` followed by ReLU as in Conv.

    The kernel is ``(input width, output width)``.
    """

    kernel: Array
    bias: Array | None = None
    relu: bool = False
    ceiling: float = math.inf

    def shape(self, *inputs: Shape) -> Shape:
        """Returns the input's shape with the output width as the last axis."""
        return (*inputs[0][:-1], self.kernel.shape[1])

    def macs(self, *inputs: Shape) -> int:
        """Returns one per weight and row."""
        return math.prod(inputs[0][:-1]) * self.kernel.size


@dataclass(frozen=True, eq=False)
class Gelu(Step):
    """GELU: ``x · Φ(x)``, or its tanh approximation (arXiv:1606.08415)."""

    tanh: bool


@dataclass(frozen=True, eq=False)
class Activation(Step):
    """A function of each value, one of ``ACTIVATIONS``."""

    function: str


@dataclass(frozen=True, eq=False)
class Exp(Step):
    """``exp(x)`` of values up to 0, as in a softmax that is composed of its parts."""


@dataclass(frozen=True, eq=False)
class Softmax(Step):
    """Softmax over the last axis."""


@dataclass(frozen=True, eq=False)
class MatMul(Step):
    """The matrix product over the last two axes, optionally with the second tensor transposed."""

    transpose_b: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(…, rows of a, columns of b)``."""
        a, b = inputs
        return (*a[:-1], b[-2] if self.transpose_b else b[-1])

    def macs(self, *inputs: Shape) -> int:
        """Returns rows × inner axis × columns, times the leading axes."""
        return math.prod(self.shape(*inputs)) * inputs[0][-1]


@dataclass(frozen=True, eq=False)
class ConstantMatMul(Step):
    """``matrix · x`` over the last two axes of x; the matrix is ``(rows, inner axis)``."""

    matrix: Array

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(…, rows, columns of x)``."""
        *leading, _, columns = inputs[0]
        return (*leading, len(self.matrix), columns)

    def macs(self, *inputs: Shape) -> int:
        """Returns rows × inner axis × columns, times the leading axes."""
        return math.prod(inputs[0]) * len(self.matrix)


@dataclass(frozen=True, eq=False)
class Attention(Step):
    """Multi-head self-attention (arXiv:1706.03762).

    ``softmax(scale · q_h k_hᵀ) v_h`` for each head h; ``out`` projects the concatenated heads.

    Attributes:
        heads: number of heads; each has an equal share of a projection's columns.
        scale: factor of the scores.
        query: projection of the tokens to the queries of all heads, ``(width, heads · size)``.
        key: the same for keys; None where every head's keys are the tokens themselves.
        value: the same for values; None where every head's values are the tokens themselves.
        out: output projection, ``(heads · size, width)``.
        fused: whether one matrix product computes query, key and value.
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
        """Returns the sum over projections, scores and weighted sums."""
        tokens = inputs[0][0]
        parts = (self.query, self.key, self.value, self.out)
        weights = sum(int(part.kernel.size) for part in parts if part is not None)
        # The scores contract the width of all queries, the weighted sums that of all values.
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
        """Returns the sum over scores and the weighted sum."""
        return 2 * math.prod(inputs[0])
