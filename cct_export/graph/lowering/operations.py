"""What the operations of ``keras.ops`` are in steps."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cct_export.graph import steps
from cct_export.graph.lowering import elementwise, products, rearranging, windows
from cct_export.graph.lowering.builder import (
    Builder,
    Handler,
    NotLowered,
    Tensor,
    Value,
    constant,
    tensor,
)


def _value(argument: Any) -> Value:
    return argument if isinstance(argument, Tensor) else constant(argument)


def _binary(function: Callable[[Builder, Value, Value], Tensor]) -> Handler:
    def handler(builder: Builder, operation: Any, a: Any, b: Any) -> Tensor:
        return function(builder, _value(a), _value(b))

    return handler


def _activation(function: str) -> Handler:
    def handler(builder: Builder, operation: Any, x: Any) -> Tensor:
        return builder.add(steps.Activation, tensor(x), function=function)

    return handler


def relu(builder: Builder, operation: Any, x: Any) -> Tensor:
    """Lowers ReLU with its limits, as an operation or a layer."""
    limit = operation.max_value
    if operation.negative_slope or operation.threshold or limit not in (None, 6):
        raise NotLowered("ReLU with another slope, threshold or maximum than 6")
    function = "relu" if limit is None else "relu6"
    return builder.add(steps.Activation, tensor(x), function=function)


def _gelu(builder: Builder, operation: Any, x: Any) -> Tensor:
    return builder.add(steps.Gelu, tensor(x), tanh=bool(operation.approximate))


def softmax(builder: Builder, operation: Any, x: Any) -> Tensor:
    """Lowers a softmax over one axis, as an operation or a layer."""
    axis = operation.axis
    if not isinstance(axis, int):
        if len(axis) != 1:
            raise NotLowered("softmax over several axes")
        axis = axis[0]
    return builder.softmax(tensor(x), tensor(x).axis(axis))


def _identity(builder: Builder, operation: Any, x: Any, *arguments: Any) -> Any:
    return x


def _clip(builder: Builder, operation: Any, x: Any) -> Tensor:
    if (operation.x_min, operation.x_max) != (0, 6):
        raise NotLowered("a limit to other values than 0 to 6")
    return builder.add(steps.Activation, tensor(x), function="relu6")


def _maximum(builder: Builder, operation: Any, a: Any, b: Any) -> Tensor:
    x, other = (a, b) if isinstance(a, Tensor) else (b, a)
    if isinstance(other, Tensor) or np.any(constant(other)):
        raise NotLowered("the maximum of other values than a tensor and 0")
    return builder.add(steps.Activation, tensor(x), function="relu")


def _conv(builder: Builder, operation: Any, x: Any, kernel: Any) -> Tensor:
    return windows.convolution(builder, operation, x, kernel)


def _resize(builder: Builder, operation: Any, x: Any) -> Tensor:
    return windows.resize(builder, operation, tensor(x), operation.size)


def _cast(builder: Builder, operation: Any, x: Any) -> Any:
    if "float" not in str(operation.dtype):
        raise NotLowered(f"a cast to {operation.dtype}")
    return x


def _negative(builder: Builder, operation: Any, x: Any) -> Tensor:
    return elementwise.times(builder, x, -np.ones(1))


def _square(builder: Builder, operation: Any, x: Any) -> Tensor:
    return elementwise.times(builder, x, x)


def _power(builder: Builder, operation: Any, x: Any, exponent: Any) -> Tensor:
    value = _value(exponent)
    if isinstance(value, Tensor) or value.size != 1 or value.item() not in (2, 0.5, -0.5):
        raise NotLowered("a power other than 2, 0.5 and -0.5")
    if value.item() == 2:
        return elementwise.times(builder, x, x)
    function = elementwise.root if value.item() > 0 else elementwise.inverse_root
    return function(builder, tensor(x))


def _sqrt(builder: Builder, operation: Any, x: Any) -> Tensor:
    return elementwise.root(builder, tensor(x))


def _rsqrt(builder: Builder, operation: Any, x: Any) -> Tensor:
    return elementwise.inverse_root(builder, tensor(x))


def _matmul(builder: Builder, operation: Any, a: Any, b: Any) -> Tensor:
    return products.matmul(builder, _value(a), _value(b))


def _einsum(builder: Builder, operation: Any, *operands: Any) -> Tensor:
    if len(operands) != 2:
        raise NotLowered(f"einsum of {len(operands)} operands")
    return products.einsum(builder, operation.subscripts, *map(_value, operands))


def _dot_product_attention(
    builder: Builder, operation: Any, *qkv: Any, scale: Any = None, **options: Any
) -> Tensor:
    query, key, value, *more = qkv
    if (
        operation.is_causal
        or operation.attn_logits_soft_cap
        or any(option is not None for option in (*more, *options.values()))
    ):
        raise NotLowered("attention with a mask, a bias or a cap")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return products.attention(builder, tensor(query), tensor(key), tensor(value), scale)


def _is_square(builder: Builder, x: Tensor) -> bool:
    step = builder.steps.get(x.name)
    return isinstance(step, steps.Multiply) and len(set(step.inputs)) == 1


def _reduction(maximum: bool = False, total: bool = False) -> Handler:
    def handler(builder: Builder, operation: Any, x: Any) -> Tensor:
        x = tensor(x)
        if operation.axis is None:
            raise NotLowered("it computes across the images of a batch")
        axes = x.axes(operation.axis)
        if axes == (len(x.shape) - 1,) and not maximum and not total and _is_square(builder, x):
            y = builder.add(steps.MeanSquare, builder.input_of(builder.steps[x.name]))
            return y if operation.keepdims else builder.reshape(y, x.shape[:-1])
        count = math.prod(x.shape[axis] for axis in axes) if total else 1
        return builder.pooled(x, axes, operation.keepdims, maximum, float(count))

    return handler


def _var(builder: Builder, operation: Any, x: Any) -> Tensor:
    x = tensor(x)
    if operation.axis is None or x.axes(operation.axis) != (len(x.shape) - 1,):
        raise NotLowered("the variance over other axes than the last")
    mean = builder.add(steps.Mean, x, part="mean")
    y = builder.add(steps.MeanSquare, builder.add(steps.Subtract, x, mean, part="centred"))
    return y if operation.keepdims else builder.reshape(y, x.shape[:-1])


def _layer_norm(
    builder: Builder, operation: Any, x: Any, gamma: Any = None, beta: Any = None
) -> Tensor:
    if operation.rms_scaling or tensor(x).axes(operation.axis) != (len(x.shape) - 1,):
        raise NotLowered("a norm over other axes than the last, or without its mean")
    gamma, beta = (None if each is None else constant(each).reshape(-1) for each in (gamma, beta))
    epsilon = 1e-7 if operation.epsilon is None else float(operation.epsilon)
    return builder.add(steps.LayerNorm, x, epsilon=epsilon, gamma=gamma, beta=beta)


ACTIVATIONS: dict[str, Handler] = {
    "Relu": _activation("relu"),
    "Relu6": _activation("relu6"),
    "ReLU": relu,
    "Silu": _activation("silu"),
    "Sigmoid": _activation("sigmoid"),
    "Tanh": _activation("tanh"),
    "HardSilu": _activation("hard-silu"),
    "HardSigmoid": _activation("hard-sigmoid"),
    "Gelu": _gelu,
    "Softmax": softmax,
}

# By the name of the operation's class in keras.ops.
OPERATIONS: dict[str, Handler] = {
    **ACTIVATIONS,
    **rearranging.OPERATIONS,
    "Add": _binary(elementwise.plus),
    "Subtract": _binary(elementwise.minus),
    "Multiply": _binary(elementwise.times),
    "Divide": _binary(elementwise.divide),
    "TrueDivide": _binary(elementwise.divide),
    "Negative": _negative,
    "Square": _square,
    "Power": _power,
    "Sqrt": _sqrt,
    "Rsqrt": _rsqrt,
    "Copy": _identity,
    "StopGradient": _identity,
    "ConvertToTensor": _identity,
    "Cast": _cast,
    "Clip": _clip,
    "Maximum": _maximum,
    "Conv": _conv,
    "MaxPool": windows.pooling(steps.MaxPool),
    "AveragePool": windows.pooling(steps.AveragePool),
    "Pad": windows.pad,
    "Resize": _resize,
    "Matmul": _matmul,
    "Dot": _matmul,
    "Einsum": _einsum,
    "DotProductAttention": _dot_product_attention,
    "Mean": _reduction(),
    "Sum": _reduction(total=True),
    "Max": _reduction(maximum=True),
    "Amax": _reduction(maximum=True),
    "Var": _var,
    "LayerNorm": _layer_norm,
}
