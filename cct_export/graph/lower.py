"""Lowers a Keras CCT to an inference plan, without the layers that only training needs."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import ConversionError
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Projection, Shape, Step
from cct_export.model.blocks import PaperBlock, TransformerBlock, gelu_exact, gelu_tanh
from cct_export.model.cct import CCT
from cct_export.model.layers import ConvTokenizer, PositionEmbedding, SequencePooling


def can_lower(model: keras.Model) -> bool:
    """Returns whether ``lower`` takes the model: a CCT of this package with unmodified layers."""
    return type(model) is CCT and all(map(_is_unmodified, model.layers))


def _is_unmodified(layer: Any) -> bool:
    """Returns whether a layer still has the activation functions that it was built with."""
    if isinstance(layer, ConvTokenizer):
        relu = keras.activations.relu
        return all(c.activation is relu and not c.use_bias for c in layer.convolutions)
    if isinstance(layer, TransformerBlock):
        gelu = gelu_tanh if layer.gelu == "tanh" else gelu_exact
        return all(dense.activation is gelu for dense in layer.mlp)
    if isinstance(layer, PaperBlock):
        return all(dense.activation is gelu_exact for dense in layer.mlp[:-1])
    if isinstance(layer, keras.layers.Dense):
        return layer.activation is keras.activations.linear
    return True


def lower(model: CCT) -> Plan:
    """Returns the unfolded inference plan of a model.

    Augmentation, dropout and stochastic depth do nothing at inference and are not in the plan.

    Args:
        model: built, on any Keras backend.

    Raises:
        ConversionError: the model has a layer that no CCT has.
    """
    _, height, width, channels = model.inputs[0].shape
    builder = _PlanBuilder((height, width, channels))
    for layer in model.layers:
        if type(layer) not in _LAYERS:
            kind = type(layer).__name__
            raise ConversionError(f"layer {layer.name} is a {kind}: a CCT has no such layer")
        _LAYERS[type(layer)](builder, layer)
    return Plan(builder.image_shape, tuple(builder.steps))


class _PlanBuilder:
    """The steps so far, and the tensor that the next one consumes by default."""

    def __init__(self, image_shape: ImageShape) -> None:
        self.image_shape = image_shape
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


def _array(weight: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float64)


def _skip(builder: _PlanBuilder, layer: Any) -> None:
    """Adds nothing: the input layer, and layers without effect at inference."""


def _rescaling(builder: _PlanBuilder, layer: Any) -> None:
    scale, shift = (np.atleast_1d(np.float64(x)) for x in (layer.scale, layer.offset))
    builder.add(steps.Scale, layer.name, scale, shift)


def _tokenizer(builder: _PlanBuilder, layer: ConvTokenizer) -> None:
    pool, margin = layer.pooling, layer.margin
    for index, convolution in enumerate(layer.convolutions):
        name = f"{layer.name}/{index}"
        builder.add(
            steps.Conv,
            f"{name}/conv",
            _array(convolution.kernel),
            strides=convolution.strides,
            pads=((margin, margin), (margin, margin)),
        )
        builder.add(steps.ZeroPad, f"{name}/padding", layer.padding.padding)
        same = tuple(map(steps.same_pads, builder.shape, pool.pool_size, pool.strides))
        pads = same if pool.padding == "same" else steps.NO_PADS
        builder.add(steps.MaxPool, f"{name}/pool", pool.pool_size, pool.strides, pads)
    rows, columns, width = builder.shape
    builder.add(steps.Reshape, f"{layer.name}/tokens", (rows * columns, width))


def _position(builder: _PlanBuilder, layer: PositionEmbedding) -> None:
    builder.add(steps.AddConstant, layer.name, _array(layer.embeddings))


def _normalization(builder: _PlanBuilder, layer: Any, name: str = "") -> None:
    gamma, beta = _array(layer.gamma), _array(layer.beta)
    builder.add(steps.LayerNorm, name or layer.name, layer.epsilon, gamma, beta)


def _block(builder: _PlanBuilder, layer: TransformerBlock) -> None:
    name, tokens = layer.name, builder.last
    _normalization(builder, layer.attention_norm, f"{name}/attention_norm")
    _attention(builder, layer, f"{name}/attention")
    builder.add_residual(f"{name}/attention_sum", tokens)
    tokens = builder.last
    _normalization(builder, layer.mlp_norm, f"{name}/mlp_norm")
    for index, dense in enumerate(layer.mlp):
        _dense(builder, dense, f"{name}/mlp_{index}")
        builder.add(steps.Gelu, f"{name}/gelu_{index}", tanh=layer.gelu == "tanh")
    builder.add_residual(f"{name}/mlp_sum", tokens)


def _paper_block(builder: _PlanBuilder, layer: PaperBlock) -> None:
    name, tokens = layer.name, builder.last
    _normalization(builder, layer.attention_norm, f"{name}/attention_norm")
    _paper_attention(builder, layer, f"{name}/attention")
    builder.add_residual(f"{name}/attention_sum", tokens)
    _normalization(builder, layer.mlp_norm, f"{name}/mlp_norm")
    tokens = builder.last
    *wide, narrow = layer.mlp
    for index, dense in enumerate(wide):
        _dense(builder, dense, f"{name}/mlp_{index}")
        builder.add(steps.Gelu, f"{name}/gelu_{index}", tanh=False)
    _dense(builder, narrow, f"{name}/mlp_{len(wide)}")
    builder.add_residual(f"{name}/mlp_sum", tokens)


def _paper_attention(builder: _PlanBuilder, layer: PaperBlock, name: str) -> None:
    width = builder.shape[1]
    query, key, value = (
        Projection(kernel, np.zeros(width)) for kernel in np.split(_array(layer.qkv.kernel), 3, 1)
    )
    out = Projection(_array(layer.projection.kernel), _array(layer.projection.bias))
    scale = 1 / math.sqrt(layer.head_dim)
    builder.add(steps.Attention, name, layer.heads, scale, query, key, value, out)


def _attention(builder: _PlanBuilder, layer: TransformerBlock, name: str) -> None:
    attention, width = layer.attention, builder.shape[1]
    query, key, value = (
        Projection(_array(dense.kernel).reshape(width, -1), _array(dense.bias).reshape(-1))
        for dense in (attention.query_dense, attention.key_dense, attention.value_dense)
    )
    dense = attention.output_dense
    out = Projection(_array(dense.kernel).reshape(-1, width), _array(dense.bias))
    scale = 1 / math.sqrt(layer.head_dim)
    builder.add(steps.Attention, name, layer.heads, scale, query, key, value, out)


def _pooling(builder: _PlanBuilder, layer: SequencePooling) -> None:
    score = layer.attention
    kernel, bias = _array(score.kernel).reshape(-1), _array(score.bias)
    builder.add(steps.SequencePool, layer.name, kernel, bias)


def _dense(builder: _PlanBuilder, layer: Any, name: str = "") -> None:
    builder.add(steps.Dense, name or layer.name, _array(layer.kernel), _array(layer.bias))


_LAYERS: dict[type, Callable[[_PlanBuilder, Any], None]] = {
    keras.layers.InputLayer: _skip,
    keras.layers.RandomCrop: _skip,
    keras.layers.RandomFlip: _skip,
    keras.layers.Rescaling: _rescaling,
    ConvTokenizer: _tokenizer,
    PositionEmbedding: _position,
    TransformerBlock: _block,
    PaperBlock: _paper_block,
    keras.layers.LayerNormalization: _normalization,
    SequencePooling: _pooling,
    keras.layers.Dense: _dense,
}
