"""The operations ("steps") of an inference plan, with float64 constants.

Shapes omit the leading batch axis. Images and feature maps are ``(height, width, channels)``,
tokens are ``(tokens, width)``.
"""

from cct_export.graph.steps.base import Array, Projection, Step
from cct_export.graph.steps.computing import (
    ACTIVATIONS,
    NO_PADS,
    Activation,
    Add,
    AddConstant,
    Attention,
    AveragePool,
    ConstantMatMul,
    Conv,
    Dense,
    Exp,
    Gelu,
    GlobalPool,
    LayerNorm,
    MatMul,
    Maximum,
    MaxPool,
    Mean,
    MeanSquare,
    Multiply,
    Resize,
    Rsqrt,
    Scale,
    SequencePool,
    Softmax,
    Subtract,
    ZeroPad,
)
from cct_export.graph.steps.moves import Concat, Crop, Gather, Reshape, Slice, Transpose
from cct_export.graph.windows import Pads, Shape
