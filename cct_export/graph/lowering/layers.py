"""What the layers of Keras are in steps."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers

from cct_export.graph import steps
from cct_export.graph.lowering import (
    elementwise,
    operations,
    preprocessing,
    products,
    rearranging,
    windows,
)
from cct_export.graph.lowering.builder import (
    Builder,
    Handler,
    NotLowered,
    Tensor,
    constant,
    tensor,
)
from cct_export.graph.steps import Array, Projection

# Keras' own function that takes no Keras tensor, and the operation that it is.
_SYMBOLIC = {keras.activations.hard_silu: keras.ops.hard_silu}


def _activated(builder: Builder, layer: Any, x: Tensor) -> Tensor:
    """Returns a tensor after the activation of a layer, a function or a layer of its own."""
    function = _SYMBOLIC.get(layer.activation, layer.activation)
    if function is None or getattr(function, "__name__", "") == "linear":
        return x
    try:
        return tensor(builder.follow("", function, x))
    except NotLowered as error:
        name = getattr(function, "__name__", None) or type(function).__name__
        raise NotLowered(f"the activation {name} is not known") from error


def _array(weight: Any) -> Array | None:
    return None if weight is None else constant(weight)


def _check_plain(layer: Any) -> None:
    if getattr(layer, "quantization_mode", None) is not None:
        raise NotLowered(f"its weights are quantized ({layer.quantization_mode})")


def _dense(builder: Builder, layer: Any, x: Any) -> Tensor:
    _check_plain(layer)
    bias = _array(layer.bias)
    y = builder.add(steps.Dense, tensor(x), kernel=constant(layer.kernel), bias=bias)
    return _activated(builder, layer, y)


def _einsum_dense(builder: Builder, layer: Any, x: Any) -> Tensor:
    _check_plain(layer)
    first, second, output = layer.equation.replace(" ", "").replace("->", ",").split(",")
    kernel, bias = constant(layer.kernel), _array(layer.bias)
    if "..." in first:
        letters = "ABCDEFGH"[: len(tensor(x).keras_shape) - len(first.replace("...", ""))]
        first, output = (each.replace("...", letters) for each in (first, output))
    if first[0] != output[0]:
        raise NotLowered(f"einsum {layer.equation!r} moves the batch axis")
    y = products.dense(builder, (first[1:], second, output[1:]), tensor(x), kernel, bias)
    return _activated(builder, layer, y)


def _conv(builder: Builder, layer: Any, x: Any) -> Tensor:
    _check_plain(layer)
    y = windows.convolution(builder, layer, x, layer.kernel, _array(layer.bias))
    activated = _activated(builder, layer, y)
    conv, activation = builder.steps[y.name], builder.steps[activated.name]
    is_relu = isinstance(activation, steps.Activation) and activation.function == "relu"
    if is_relu and activation.inputs == (y.name,):
        assert isinstance(conv, steps.Conv)
        del builder.steps[activated.name]
        builder.steps[y.name] = replace(conv, relu=True)
        return y
    return activated


def _zero_padding(builder: Builder, layer: Any, x: Any) -> Tensor:
    windows.check_channels_last(layer)
    rows, columns = (tuple(each) for each in layer.padding)
    return builder.add(steps.ZeroPad, tensor(x), pads=(rows, columns))


def _cropping(builder: Builder, layer: Any, x: Any) -> Tensor:
    windows.check_channels_last(layer)
    y = tensor(x)
    for axis, (before, after) in enumerate(layer.cropping):
        y = builder.select(y, axis, before, y.shape[axis] - after)
    return y


def _global_pooling(maximum: bool) -> Handler:
    def handler(builder: Builder, layer: Any, x: Any, mask: Any = None) -> Tensor:
        windows.check_channels_last(layer)
        if mask is not None:
            raise NotLowered("a mask")
        axes = range(len(tensor(x).shape) - 1)
        return builder.pooled(x, axes, layer.keepdims, maximum)

    return handler


def _batch_normalization(builder: Builder, layer: Any, x: Any, mask: Any = None) -> Tensor:
    if mask is not None or tensor(x).axis(layer.axis) != len(x.shape) - 1:
        raise NotLowered("it normalizes another axis than the last")
    deviation = np.sqrt(constant(layer.moving_variance) + layer.epsilon)
    gamma = 1.0 if layer.gamma is None else constant(layer.gamma)
    beta = 0.0 if layer.beta is None else constant(layer.beta)
    scale = gamma / deviation
    return builder.affine(x, scale, beta - constant(layer.moving_mean) * scale)


def _layer_normalization(builder: Builder, layer: Any, x: Any) -> Tensor:
    axes = tensor(x).axes(layer.axis)
    if axes != (len(x.shape) - 1,):
        raise NotLowered("it normalizes other axes than the last")
    if getattr(layer, "rms_scaling", False):
        raise NotLowered("a norm with rms_scaling")
    gamma, beta = _array(layer.gamma), _array(layer.beta)
    return builder.add(steps.LayerNorm, x, epsilon=float(layer.epsilon), gamma=gamma, beta=beta)


def _rms_normalization(builder: Builder, layer: Any, x: Any) -> Tensor:
    if tensor(x).axes(layer.axis) != (len(x.shape) - 1,):
        raise NotLowered("it normalizes other axes than the last")
    square = builder.add(steps.MeanSquare, x, part="variance")
    inverse = builder.add(steps.Rsqrt, square, part="inverse", epsilon=float(layer.epsilon))
    y = builder.add(steps.Multiply, x, inverse)
    return y if layer.scale is None else elementwise.times(builder, y, constant(layer.scale))


def _attention(
    builder: Builder, layer: Any, query: Any, value: Any, key: Any = None, **options: Any
) -> Any:
    """Lowers self-attention over tokens; any other attention is entered."""
    same = all(each is None or each is query for each in (value, key))
    self_attention = same and len(tensor(query).shape) == 2
    used = [name for name, option in options.items() if option is not False]
    if used:
        raise NotLowered(f"attention with {used[0]}")
    if not self_attention or getattr(layer, "_use_gate", False) or layer._sliding_window:
        return builder.follow("", layer.call, query, value, key)

    def projection(dense: Any, matrix: tuple[int, int]) -> Projection:
        _check_plain(dense)
        kernel = constant(dense.kernel).reshape(matrix)
        bias = np.zeros(kernel.shape[1]) if dense.bias is None else constant(dense.bias)
        return Projection(kernel, bias.reshape(-1))

    width = query.shape[1]
    inputs = (layer._query_dense, layer._key_dense, layer._value_dense)
    query_, key_, value_ = (projection(dense, (width, -1)) for dense in inputs)
    out = projection(layer._output_dense, (value_.kernel.shape[1], -1))
    return builder.add(
        steps.Attention,
        query,
        heads=layer.num_heads,
        scale=1 / math.sqrt(layer.key_dim),
        query=query_,
        key=key_,
        value=value_,
        out=out,
    )


def _activation_layer(builder: Builder, layer: Any, x: Any) -> Tensor:
    return _activated(builder, layer, tensor(x))


def _softmax(builder: Builder, layer: Any, x: Any, mask: Any = None) -> Tensor:
    if mask is not None:
        raise NotLowered("a mask")
    return operations.softmax(builder, layer, x)


def _merge(function: Callable[..., Tensor]) -> Handler:
    def handler(builder: Builder, layer: Any, inputs: Any) -> Tensor:
        first, *others = inputs
        for other in others:
            first = function(builder, first, other)
        return tensor(first)

    return handler


def _flatten(builder: Builder, layer: Any, x: Any) -> Tensor:
    windows.check_channels_last(layer)
    return builder.reshape(tensor(x), (math.prod(x.shape),), part="")


def _reshape(builder: Builder, layer: Any, x: Any) -> Tensor:
    return rearranging.reshaped(builder, tensor(x), (None, *layer.target_shape))


def _permute(builder: Builder, layer: Any, x: Any) -> Tensor:
    return builder.transpose(tensor(x), [axis - 1 for axis in layer.dims], part="")


LAYERS: dict[type, Handler] = {
    **preprocessing.LAYERS,
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    layers.Conv2D: _conv,
    layers.ZeroPadding2D: _zero_padding,
    layers.Cropping2D: _cropping,
    layers.MaxPooling2D: windows.pooling(steps.MaxPool),
    layers.AveragePooling2D: windows.pooling(steps.AveragePool),
    layers.GlobalAveragePooling1D: _global_pooling(maximum=False),
    layers.GlobalAveragePooling2D: _global_pooling(maximum=False),
    layers.GlobalMaxPooling1D: _global_pooling(maximum=True),
    layers.GlobalMaxPooling2D: _global_pooling(maximum=True),
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
    layers.RMSNormalization: _rms_normalization,
    layers.MultiHeadAttention: _attention,
    layers.Activation: _activation_layer,
    layers.ReLU: operations.relu,
    layers.Softmax: _softmax,
    layers.Add: _merge(elementwise.plus),
    layers.Subtract: _merge(elementwise.minus),
    layers.Multiply: _merge(elementwise.times),
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
}
