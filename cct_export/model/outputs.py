"""What the outputs of a Keras model hold, read from its graph."""

import re
from typing import Any, NamedTuple

import keras
from keras import layers

from cct_export.records import OutputContract
from cct_export.records.output import Activation

SINGLE_OUTPUT = "logits"
# No output may have the name of the input.
_TAKEN = "image"
# What computes numbers of any size: its output is logits unless an activation follows.
_UNBOUNDED = (
    layers.Dense, layers.EinsumDense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D,
    layers.SeparableConv2D, layers.BatchNormalization, layers.LayerNormalization, layers.Rescaling,
)  # fmt: skip
# What moves values, and changes none of them.
_MOVING = (
    layers.Reshape, layers.Flatten, layers.Identity, layers.Dropout, layers.SpatialDropout1D,
    layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout,
    layers.ActivityRegularization,
)  # fmt: skip
_MOVING_FUNCTIONS = ("Reshape", "Squeeze", "ExpandDims")


class _Values(NamedTuple):
    """What a tensor holds.

    Attributes:
        activation: as in ``OutputContract``.
        size: of a softmax, how many values that follow each other sum to 1.
    """

    activation: Activation
    size: int = 0


_UNKNOWN = _Values("")


def outputs_of(model: keras.Model) -> tuple[OutputContract, ...]:
    """Returns name, shape and activation of each output of a model.

    A single output is called ``logits``, whatever it holds; of several each has its Keras name.

    Args:
        model: an image classifier with a flat list of outputs, see ``checkpoint.check_classifier``.
    """
    names = _names(model)
    return tuple(
        OutputContract(
            name, "float32", tensor.shape[-1], tuple(tensor.shape[1:]), _activation(tensor)
        )
        for name, tensor in zip(names, model.outputs, strict=True)
    )


def _names(model: keras.Model) -> list[str]:
    if len(model.outputs) == 1:
        return [SINGLE_OUTPUT]
    names: list[str] = []
    for keras_name in model.output_names:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", str(keras_name)) or "output"
        name, number = plain, 1
        while name in (_TAKEN, *names):
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names


def _activation(tensor: Any) -> Activation:
    values = _values(tensor)
    if values.activation == "softmax" and values.size != tensor.shape[-1]:
        return ""  # a softmax over other groups than the classes
    return values.activation


def _values(tensor: Any) -> _Values:
    """Returns what a symbolic tensor holds, by the operations that it is the result of."""
    history = getattr(tensor, "_keras_history", None)
    if history is None:
        return _UNKNOWN
    operation = history.operation
    inputs = operation._inbound_nodes[history.node_index].input_tensors
    if isinstance(operation, keras.Model):
        return _values(operation.outputs[history.tensor_index])
    if isinstance(operation, layers.Concatenate | layers.Average):
        kinds = {_values(each) for each in inputs}
        return kinds.pop() if len(kinds) == 1 else _UNKNOWN
    if _only_moves(operation):
        return _values(inputs[0])
    return _computed(operation, tensor)


def _only_moves(operation: Any) -> bool:
    if isinstance(operation, layers.Activation):
        return operation.activation is keras.activations.linear
    is_layer = isinstance(operation, layers.Layer)
    named = not is_layer and type(operation).__name__ in _MOVING_FUNCTIONS
    return named or isinstance(operation, _MOVING)


def _computed(operation: Any, tensor: Any) -> _Values:
    """Returns what a tensor holds by the activation at the end of its operation."""
    kind, axis = _activation_of(operation)
    if kind == "softmax":
        last = axis in (-1, len(tensor.shape) - 1)
        return _Values("softmax", tensor.shape[-1]) if last else _UNKNOWN
    if kind == "none" and not isinstance(operation, _UNBOUNDED):
        return _UNKNOWN
    return _Values(kind)


def _activation_of(operation: Any) -> tuple[Activation, Any]:
    """Returns the activation of a layer or function, and the axis of a softmax."""
    is_layer = isinstance(operation, layers.Layer)
    name = "" if is_layer else type(operation).__name__
    if name == "Softmax" or isinstance(operation, layers.Softmax):
        return "softmax", operation.axis
    if name == "Sigmoid":
        return "sigmoid", None
    known: dict[Any, Activation] = {
        keras.activations.linear: "none",
        keras.activations.softmax: "softmax",
        keras.activations.sigmoid: "sigmoid",
    }
    return known.get(getattr(operation, "activation", keras.activations.linear), ""), -1
