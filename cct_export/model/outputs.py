"""What the outputs of a model are, logits or probabilities: its graph tells."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from cct_export.records import OutputContract
from cct_export.records.output import Activation

SINGLE_OUTPUT = "logits"
# No output may have the name of the input.
_TAKEN = "image"
_PROBABILITIES: dict[Any, Activation] = {
    keras.activations.softmax: "softmax",
    keras.ops.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.ops.sigmoid: "sigmoid",
    # Of these a softmax makes the probabilities again.
    keras.activations.log_softmax: "none",
    keras.ops.log_softmax: "none",
}
# Layers and operations, by the names of their classes.
_OPERATIONS: dict[str, Activation] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "LogSoftmax": "none",
}
# Those that only move values.
_MOVING = (
    "Activation", "Cast", "ExpandDims", "Flatten", "GetItem", "Identity", "Permute", "Reshape",
    "Squeeze", "Transpose",
)  # fmt: skip
# Those that make logits of logits.
_LINEAR = (
    "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Rescaling", "Average", "Mean", "Sum",
    "Concatenate", "BatchNormalization", "LayerNormalization", "AveragePooling1D",
    "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
)  # fmt: skip


def outputs_of(model: keras.Model) -> tuple[OutputContract, ...]:
    """Returns name, shape and activation of each output of a model.

    A single output is called ``logits``, whatever it holds; of several each has its Keras name.

    Args:
        model: an image classifier with a flat list of outputs, see ``checkpoint.check_classifier``.
    """
    names = _names(model)
    return tuple(
        OutputContract(
            name, "float32", tensor.shape[-1], tuple(tensor.shape[1:]), activation_of(model, index)
        )
        for index, (name, tensor) in enumerate(zip(names, model.outputs, strict=True))
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


def activation_of(model: keras.Model, output: int = 0) -> Activation:
    """Returns what an output of a model is.

    Identities, dropout, changes of shape and type, nested models and layers of the user's are
    passed on the way back to the last activation.

    Args:
        model: Functional or Sequential.
        output: index of the output.

    Returns:
        ``none`` for logits, ``softmax`` or ``sigmoid`` for probabilities; empty if the graph does
        not tell.

    Example:
        >>> activation_of(keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]))
        'none'
    """
    return _activation(model.outputs[output], {})


def recorded(function: Callable[..., Any], shape: tuple[int | None, ...]) -> keras.Model | None:
    """Returns the graph of a function, such as the ``call`` of a layer of the user's.

    Args:
        function: of one tensor.
        shape: of that tensor, batch first.

    Returns:
        A model of Keras' operations and layers; None for a function that uses others.
    """
    tensor = keras.Input(batch_shape=(1, *shape[1:]))
    try:
        training = "training" in inspect.signature(function).parameters
        return keras.Model(tensor, function(tensor, **({"training": False} if training else {})))
    # It may raise anything where a tensor has no values yet.
    except Exception:
        return None


def inner_graph(operation: Any, shape: tuple[int | None, ...]) -> keras.Model | None:
    """Returns the graph of a nested model or of a layer that is not Keras' own.

    Args:
        operation: of a graph.
        shape: of its input, batch first.

    Returns:
        The graph; None if it has none, or one that cannot be known.
    """
    if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
        return operation
    is_layer = isinstance(operation, keras.Layer)
    return recorded(operation.call, shape) if is_layer and not _is_keras(operation) else None


def _is_keras(operation: Any) -> bool:
    return type(operation).__module__.startswith("keras.")


def _activation(tensor: Any, outer: Mapping[int, Any]) -> Activation:
    """Returns what a tensor of a graph is.

    Args:
        tensor: the tensor.
        outer: the tensors on which nested models were called, by the ids of these models' inputs.
    """
    operation, node_index, tensor_index = tensor._keras_history
    arguments = operation._inbound_nodes[node_index].input_tensors
    if not arguments:
        return _activation(outer[id(tensor)], outer) if id(tensor) in outer else "none"
    if type(operation).__name__ == "TimeDistributed":
        operation = operation.layer
    elif inner := inner_graph(operation, arguments[0].shape):
        links = zip(map(id, inner.inputs), arguments, strict=False)
        return _activation(inner.outputs[tensor_index], {**outer, **dict(links)})
    if not _is_keras(operation):  # a program that was read may tell itself
        known: Sequence[Activation] = getattr(operation, "output_activations", ())
        return known[tensor_index] if known else ""
    function = getattr(operation, "activation", None)
    if type(operation).__name__ == "Reshape" and _are_slots(arguments[0], tensor, outer):
        return "softmax"
    if function in (None, keras.activations.linear):
        before = [_activation(each, outer) for each in arguments if not _has_kernel(operation)]
        return _after_operation(operation, tensor, arguments[0], before)
    is_alone = type(operation).__name__ == "Activation"
    return _after_function(function, tensor, arguments[0] if is_alone else None, outer)


def _are_slots(joined: Any, tensor: Any, outer: Mapping[int, Any]) -> bool:
    """Returns whether a tensor has a softmax in each slot, which were joined side by side before.

    Args:
        joined: what was reshaped.
        tensor: the result.
        outer: see ``_activation``.
    """
    operation, node_index, _ = joined._keras_history
    if type(operation).__name__ != "Concatenate" or len(joined.shape) != 2:
        return False
    parts = operation._inbound_nodes[node_index].input_tensors
    return all(
        part.shape[-1] == tensor.shape[-1] and _activation(part, outer) == "softmax"
        for part in parts
    )


def _has_kernel(operation: Any) -> bool:
    """Returns whether a layer with weights ends in an activation function: linear makes logits."""
    return bool(getattr(operation, "weights", ())) and hasattr(operation, "activation")


def _after_operation(
    operation: Any, tensor: Any, argument: Any, before: Sequence[Activation]
) -> Activation:
    """Returns what an operation without an activation function, or a linear one, makes.

    Args:
        operation: a layer, or an operation of ``keras.ops``.
        tensor: its result.
        argument: the first tensor that it gets.
        before: what each of these tensors is; empty where that does not matter.
    """
    kind = type(operation).__name__
    if kind in _OPERATIONS:
        is_last = getattr(operation, "axis", -1) in (-1, len(tensor.shape) - 1)
        return _OPERATIONS[kind] if is_last else ""
    if kind in _MOVING or "Dropout" in kind:
        # A softmax is one over the last axis only.
        broken = before[0] == "softmax" and argument.shape[-1] != tensor.shape[-1]
        return "" if broken else before[0]
    if kind == "Average" and len(set(before)) == 1:
        return before[0]
    if kind == "Concatenate" and set(before) == {"sigmoid"}:
        return "sigmoid"
    is_linear = not before or (kind in _LINEAR and set(before) == {"none"})
    return "none" if is_linear else ""


def _after_function(
    function: Any, tensor: Any, before: Any, outer: Mapping[int, Any]
) -> Activation:
    """Returns what an activation function makes: of a tensor, or of logits if that is None."""
    if function in _PROBABILITIES:
        return _PROBABILITIES[function]
    graph = recorded(function, tensor.shape)
    if graph is None:
        return ""
    links = {} if before is None else {id(graph.inputs[0]): before}
    return _activation(graph.outputs[0], {**outer, **links})
