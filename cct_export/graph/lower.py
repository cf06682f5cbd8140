"""From a Keras CCT to an inference plan: what training alone needs is left out."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cct_export.errors import ConversionError
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Projection, Shape, Step
from cct_export.model.blocks import PaperBlock, TransformerBlock, gelu_exact, gelu_tanh
from cct_export.model.cct import CCT
from cct_export.model.layers import ConvTokenizer, PositionEmbedding, SequencePooling


def can_lower(model: keras.Model) -> bool:
    """Tells whether ``lower`` knows the model: a CCT of ours, its layers as it made them."""
    return type(model) is CCT and all(map(_is_as_made, model.layers))


def _is_as_made(layer: Any) -> bool:
    """Tells a layer whose functions nobody changed after it was made."""
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
    """Returns what ``model`` computes at inference, unfolded.

    Augmentation, dropout and stochastic depth do nothing at inference and are not in the plan.

    Args:
        model: built, on any Keras backend.

    Raises:
        ConversionError: a layer that no CCT has.
    """
    building = _Building(tuple(int(size) for size in model.inputs[0].shape[1:]))
    for layer in model.layers:
        if type(layer) not in _LAYERS:
            kind = type(layer).__name__
            raise ConversionError(f"layer {layer.name} is a {kind}: a CCT has no such layer")
        _LAYERS[type(layer)](building, layer)
    return Plan(building.image_shape, tuple(building.steps))


class _Building:
    """The steps so far, and the tensor that the next one reads if not told otherwise."""

    def __init__(self, image_shape: Shape) -> None:
        self.image_shape = image_shape
        self.steps: list[Step] = []
        self.last = Plan.INPUT

    @property
    def shape(self) -> Shape:
        """The shape of the last tensor."""
        return Plan(self.image_shape, tuple(self.steps)).shapes[self.last]

    def add(self, kind: Callable[..., Step], name: str, *fields: Any, **more: Any) -> str:
        """Appends a step on the last tensor and returns the new one."""
        step = kind(name, (self.last,), *fields, **more)
        self.steps.append(step)
        self.last = step.output
        return self.last

    def add_residual(self, name: str, residual: str) -> None:
        """Appends the sum of the last tensor and ``residual``."""
        self.steps.append(steps.Add(name, (residual, self.last)))
        self.last = name


def _array(weight: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float64)


def _nothing(building: _Building, layer: Any) -> None:
    """The input, and layers that do nothing at inference."""


def _rescaling(building: _Building, layer: Any) -> None:
    scale, shift = (np.atleast_1d(np.float64(part)) for part in (layer.scale, layer.offset))
    building.add(steps.Scale, layer.name, scale, shift)


def _tokenizer(building: _Building, layer: ConvTokenizer) -> None:
    pool, margin = layer.pooling, layer.margin
    for index, convolution in enumerate(layer.convolutions):
        name = f"{layer.name}/{index}"
        building.add(
            steps.Conv,
            f"{name}/conv",
            _array(convolution.kernel),
            strides=convolution.strides,
            pads=((margin, margin), (margin, margin)),
        )
        building.add(steps.ZeroPad, f"{name}/padding", layer.padding.padding)
        same = tuple(map(same_pads, building.shape, pool.pool_size, pool.strides))
        pads = same if pool.padding == "same" else steps.NO_PADS
        building.add(steps.MaxPool, f"{name}/pool", pool.pool_size, pool.strides, pads)
    rows, columns, width = building.shape
    building.add(steps.Reshape, f"{layer.name}/tokens", (rows * columns, width))


def same_pads(size: int, window: int, stride: int) -> tuple[int, int]:
    """Returns what TensorFlow's SAME adds before and after an axis of ``size``."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _position(building: _Building, layer: PositionEmbedding) -> None:
    building.add(steps.AddConstant, layer.name, _array(layer.embeddings))


def _normalization(building: _Building, layer: Any, name: str = "") -> None:
    gamma, beta = _array(layer.gamma), _array(layer.beta)
    building.add(steps.LayerNorm, name or layer.name, layer.epsilon, gamma, beta)


def _block(building: _Building, layer: TransformerBlock) -> None:
    name, tokens = layer.name, building.last
    _normalization(building, layer.attention_norm, f"{name}/attention_norm")
    _attention(building, layer, f"{name}/attention")
    building.add_residual(f"{name}/attention_sum", tokens)
    tokens = building.last
    _normalization(building, layer.mlp_norm, f"{name}/mlp_norm")
    for index, dense in enumerate(layer.mlp):
        _dense(building, dense, f"{name}/mlp_{index}")
        building.add(steps.Gelu, f"{name}/gelu_{index}", tanh=layer.gelu == "tanh")
    building.add_residual(f"{name}/mlp_sum", tokens)


def _paper_block(building: _Building, layer: PaperBlock) -> None:
    name, tokens = layer.name, building.last
    _normalization(building, layer.attention_norm, f"{name}/attention_norm")
    _paper_attention(building, layer, f"{name}/attention")
    building.add_residual(f"{name}/attention_sum", tokens)
    _normalization(building, layer.mlp_norm, f"{name}/mlp_norm")
    tokens = building.last
    *wide, narrow = layer.mlp
    for index, dense in enumerate(wide):
        _dense(building, dense, f"{name}/mlp_{index}")
        building.add(steps.Gelu, f"{name}/gelu_{index}", tanh=False)
    _dense(building, narrow, f"{name}/mlp_{len(wide)}")
    building.add_residual(f"{name}/mlp_sum", tokens)


def _paper_attention(building: _Building, layer: PaperBlock, name: str) -> None:
    width = building.shape[1]
    query, key, value = (
        Projection(kernel, np.zeros(width)) for kernel in np.split(_array(layer.qkv.kernel), 3, 1)
    )
    out = Projection(_array(layer.projection.kernel), _array(layer.projection.bias))
    scale = 1 / math.sqrt(layer.head_dim)
    building.add(steps.Attention, name, layer.heads, scale, query, key, value, out)


def _attention(building: _Building, layer: TransformerBlock, name: str) -> None:
    part, width = layer.attention, building.shape[1]
    query, key, value = (
        Projection(_array(dense.kernel).reshape(width, -1), _array(dense.bias).reshape(-1))
        for dense in (part.query_dense, part.key_dense, part.value_dense)
    )
    dense = part.output_dense
    out = Projection(_array(dense.kernel).reshape(-1, width), _array(dense.bias))
    scale = 1 / math.sqrt(layer.head_dim)
    building.add(steps.Attention, name, layer.heads, scale, query, key, value, out)


def _pooling(building: _Building, layer: SequencePooling) -> None:
    score = layer.attention
    kernel, bias = _array(score.kernel).reshape(-1), _array(score.bias)
    building.add(steps.SequencePool, layer.name, kernel, bias)


def _dense(building: _Building, layer: Any, name: str = "") -> None:
    building.add(steps.Dense, name or layer.name, _array(layer.kernel), _array(layer.bias))


_LAYERS: dict[type, Callable[[_Building, Any], None]] = {
    keras.layers.InputLayer: _nothing,
    keras.layers.RandomCrop: _nothing,
    keras.layers.RandomFlip: _nothing,
    keras.layers.Rescaling: _rescaling,
    ConvTokenizer: _tokenizer,
    PositionEmbedding: _position,
    TransformerBlock: _block,
    PaperBlock: _paper_block,
    keras.layers.LayerNormalization: _normalization,
    SequencePooling: _pooling,
    keras.layers.Dense: _dense,
}
