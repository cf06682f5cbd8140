"""Lowers a CCT to an inference plan, without the layers that only training needs.

A plan follows from the architecture and the weights; Keras is needed where a model holds them.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Projection, Shape, Step
from cct_export.graph.windows import same_pads
from cct_export.specs import NORM_EPSILON, ModelSpec

if TYPE_CHECKING:
    import keras

    from cct_export.model.cct import CCT

# Returns the weight with a name in Keras, such as ``logits/kernel``, and a shape.
Weights = Callable[[str, Shape], Array]

_POOL, _POOL_STRIDES = (3, 3), (2, 2)
_FRAME = ((1, 1), (1, 1))


def can_lower(model: "keras.Model") -> bool:
    """Returns whether ``lower`` takes the model: a CCT of this package with unmodified layers."""
    from cct_export.model.cct import CCT

    return type(model) is CCT and all(map(_is_unmodified, model.layers))


def _is_unmodified(layer: Any) -> bool:
    """Returns whether a layer still has the activation functions that it was built with."""
    import keras

    from cct_export.model.blocks import PaperBlock, TransformerBlock
    from cct_export.model.layers import ConvTokenizer

    if isinstance(layer, ConvTokenizer):
        relu = keras.activations.relu
        return all(c.activation is relu and not c.use_bias for c in layer.convolutions)
    if isinstance(layer, TransformerBlock):
        return all(dense.activation is layer.mlp_function for dense in layer.mlp)
    if isinstance(layer, PaperBlock):
        return all(dense.activation is layer.mlp_function for dense in layer.mlp[:-1])
    if isinstance(layer, keras.layers.Dense):
        return layer.activation is keras.activations.linear
    return True


def lower(model: "CCT", *, narrow: bool = False) -> Plan:
    """Returns the unfolded inference plan of a model.

    Augmentation, dropout and stochastic depth do nothing at inference and are not in the plan.

    Args:
        model: built, on any Keras backend.
        narrow: whether the weights stay of the model's type, and in its memory where TensorFlow
            shares it; else they are copied to float64.
    """
    # Keras puts the names of what a model is part of before the name of its layer.
    weights = {
        f"{layer.name}/{weight.path.rpartition(f'{layer.name}/')[2]}": weight
        for layer in model.layers
        for weight in layer.weights
    }

    def read(name: str, shape: Shape) -> Array:
        array = _values(weights[name])
        assert array.shape == shape, name
        return array if narrow else np.array(array, np.float64)

    return plan_from(model.spec, read)


def _values(weight: Any) -> Array:
    """Returns the values of a Keras variable, in its own memory where the backend shares that."""
    from keras import ops

    value = weight.value
    try:  # TensorFlow's variables share their memory with what is read of them
        return np.asarray(memoryview(value.read_value() if hasattr(value, "read_value") else value))
    except (TypeError, ValueError):
        return np.asarray(ops.convert_to_numpy(weight))


def plan_from(spec: ModelSpec, weights: Weights) -> Plan:
    """Returns the unfolded inference plan of an architecture; see ``lower``.

    Args:
        spec: the architecture.
        weights: called once for every weight.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    builder = _PlanBuilder(spec, weights)
    scale, shift = (np.atleast_1d(np.asarray(each, np.float64)) for each in spec.rescaling)
    builder.add(steps.Scale, "rescaling", scale, shift)
    _tokenizer(builder)
    if spec.positional != "none":
        table = weights("position_embedding/embeddings", builder.shape)
        builder.add(steps.AddConstant, "position_embedding", table)
    for index in range(spec.layers):
        (_block if spec.block == "keras" else _paper_block)(builder, f"block_{index}")
    _normalization(builder, "norm")
    kernel = weights("pooling/attention/kernel", (spec.width, 1)).reshape(-1)
    bias = weights("pooling/attention/bias", (1,))
    builder.add(steps.SequencePool, "pooling", kernel, bias)
    _dense(builder, "logits", spec.classes)
    return Plan(builder.image_shape, tuple(builder.steps))


class _PlanBuilder:
    """The steps so far, and the tensor that the next one consumes by default."""

    def __init__(self, spec: ModelSpec, weights: Weights) -> None:
        self.spec = spec
        self.weights = weights
        self.image_shape = (spec.image_size, spec.image_size, spec.channels)
        self.steps: list[Step] = []
        self.last = Plan.INPUT

    @property
    def shape(self) -> Shape:
        """The shape of the last tensor."""
        return Plan(self.image_shape, tuple(self.steps)).shapes[self.last]

    def add(self, kind: Callable[..., Step], name: str, *fields: Any, **options: Any) -> str:
        """Appends a step on the last tensor and returns its output."""
        step = kind(name, (self.last,), *fields, **options)
        self.steps.append(step)
        self.last = step.output
        return self.last

    def add_residual(self, name: str, residual: str) -> None:
        """Appends the sum of the last tensor and ``residual``."""
        self.steps.append(steps.Add(name, (residual, self.last)))
        self.last = name

    def projection(self, name: str, kernel: Shape, bias: Shape, matrix: Shape) -> Projection:
        """Returns a linear map whose weights Keras keeps in other shapes than a matrix."""
        return Projection(
            self.weights(f"{name}/kernel", kernel).reshape(matrix),
            self.weights(f"{name}/bias", bias).reshape(-1),
        )


def _tokenizer(builder: _PlanBuilder) -> None:
    spec = builder.spec
    margin = (spec.padding, spec.padding)
    for index, filters in enumerate(spec.filters):
        name = f"tokenizer/{index}"
        shape = (spec.kernel, spec.kernel, builder.shape[2], filters)
        kernel = builder.weights(f"tokenizer/conv_{index}/kernel", shape)
        strides = (spec.stride, spec.stride)
        builder.add(steps.Conv, f"{name}/conv", kernel, strides=strides, pads=(margin, margin))
        builder.add(steps.ZeroPad, f"{name}/padding", _FRAME)
        same = tuple(map(same_pads, builder.shape, _POOL, _POOL_STRIDES))
        pads = same if spec.block == "keras" else steps.NO_PADS
        builder.add(steps.MaxPool, f"{name}/pool", _POOL, _POOL_STRIDES, pads)
    rows, columns, width = builder.shape
    builder.add(steps.Reshape, "tokenizer/tokens", (rows * columns, width))


def _normalization(builder: _PlanBuilder, name: str) -> None:
    gamma, beta = (
        builder.weights(f"{name}/{part}", (builder.spec.width,)) for part in ("gamma", "beta")
    )
    builder.add(steps.LayerNorm, name, NORM_EPSILON, gamma, beta)


def _block(builder: _PlanBuilder, name: str) -> None:
    tokens = builder.last
    _normalization(builder, f"{name}/attention_norm")
    _attention(builder, f"{name}/attention")
    builder.add_residual(f"{name}/attention_sum", tokens)
    tokens = builder.last
    _normalization(builder, f"{name}/mlp_norm")
    for index, units in enumerate(builder.spec.mlp_units):
        _dense(builder, f"{name}/mlp_{index}", units)
        _activation(builder, name, index)
    builder.add_residual(f"{name}/mlp_sum", tokens)


def _paper_block(builder: _PlanBuilder, name: str) -> None:
    tokens = builder.last
    _normalization(builder, f"{name}/attention_norm")
    _paper_attention(builder, name)
    builder.add_residual(f"{name}/attention_sum", tokens)
    _normalization(builder, f"{name}/mlp_norm")
    tokens, last = builder.last, len(builder.spec.mlp_units) - 1
    for index, units in enumerate(builder.spec.mlp_units):
        _dense(builder, f"{name}/mlp_{index}", units)
        if index < last:
            _activation(builder, name, index)
    builder.add_residual(f"{name}/mlp_sum", tokens)


def _activation(builder: _PlanBuilder, block: str, index: int) -> None:
    """Appends what follows a dense layer of an MLP."""
    spec = builder.spec
    if spec.activation == "relu":
        builder.add(steps.Activation, f"{block}/relu_{index}", "relu")
    else:
        tanh = spec.block == "keras" and spec.gelu == "tanh"
        builder.add(steps.Gelu, f"{block}/gelu_{index}", tanh=tanh)


def _paper_attention(builder: _PlanBuilder, block: str) -> None:
    spec, width = builder.spec, builder.spec.width
    kernels = np.split(builder.weights(f"{block}/qkv/kernel", (width, 3 * width)), 3, 1)
    query, key, value = (Projection(kernel, np.zeros(width)) for kernel in kernels)
    square = (width, width)
    out = builder.projection(f"{block}/projection", square, (width,), square)
    scale = 1 / math.sqrt(spec.head_dim)
    name = f"{block}/attention"
    builder.add(steps.Attention, name, spec.heads, scale, query, key, value, out)


def _attention(builder: _PlanBuilder, name: str) -> None:
    spec = builder.spec
    width, heads = spec.width, (spec.heads, spec.head_dim)
    query, key, value = (
        builder.projection(f"{name}/{part}", (width, *heads), heads, (width, -1))
        for part in ("query", "key", "value")
    )
    out = builder.projection(f"{name}/attention_output", (*heads, width), (width,), (-1, width))
    scale = 1 / math.sqrt(spec.head_dim)
    builder.add(steps.Attention, name, spec.heads, scale, query, key, value, out)


def _dense(builder: _PlanBuilder, name: str, units: int) -> None:
    kernel = builder.weights(f"{name}/kernel", (builder.shape[-1], units))
    builder.add(steps.Dense, name, kernel, builder.weights(f"{name}/bias", (units,)))
