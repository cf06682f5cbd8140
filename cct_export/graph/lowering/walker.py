"""Follows a Keras model from its image to its output, operation by operation."""

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from cct_export.data.dataset import ImageShape
from cct_export.graph.lowering.builder import Builder, Handler, NotLowered, Tensor, Value, constant
from cct_export.graph.lowering.layers import LAYERS
from cct_export.graph.lowering.operations import OPERATIONS
from cct_export.text import one_line

log = logging.getLogger(__name__)

# The functions of Keras' models that run the graph which they hold.
_GRAPHS = ("Functional.call", "Sequential.call")
# What Keras and NumPy say where code passes a tensor without values to a library.
_LIBRARIES = {
    "input to a TensorFlow function": "TensorFlow",
    "input to a JAX function": "JAX",
    "convert it to a NumPy array": "NumPy",
    "does not support ufuncs": "NumPy",
}
_MAX_CAUSE = 120
_OPERATORS = {"add": ops.add, "sub": ops.subtract, "mul": ops.multiply, "truediv": ops.true_divide}


def follow_model(model: keras.Model, image_shape: ImageShape) -> tuple[Builder, Value]:
    """Returns the steps that a model takes from an image to its output, and the output.

    Args:
        model: with one image as its input.
        image_shape: height, width and channels.

    Raises:
        NotLowered: it has something that no step computes.
    """
    walker = _Walker(image_shape)
    outputs = walker.run(model, (walker.builder.image,), {}, name="")
    if len(outputs) != 1:
        raise NotLowered(f"it has {len(outputs)} outputs", located=True)
    return walker.builder, outputs[0]


class _Walker:
    """The steps so far, and whether the operations at work are inside a layer's own code."""

    def __init__(self, image_shape: ImageShape) -> None:
        self.builder = Builder(image_shape, self.enter)
        self._entered = 0

    def run(self, operation: Any, args: Any, kwargs: Any, name: str | None = None) -> list[Value]:
        """Returns the outputs of an operation of Keras for tensors of the plan."""
        with self.builder.inside(self._name(operation) if name is None else name):
            try:
                return _flat(self._results(operation, args, _given(kwargs)))
            except NotLowered as error:
                if error.located:
                    raise
                raise self._located(str(error), operation) from error
            # What a handler trips over is a form of the operation that it was not written for.
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                reason = f"{type(operation).__name__} is not known in this form"
                log.debug("%s: %s", reason, error)
                raise self._located(reason, operation) from error

    def _located(self, reason: str, operation: Any) -> NotLowered:
        return NotLowered(f"{self.builder.scope or operation.name}: {reason}", located=True)

    def _results(self, operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        kwargs.pop("training", None)  # False, whatever the graph says: the model is asked so
        if type(operation).call.__qualname__ in _GRAPHS and operation.outputs:
            given = zip(operation.inputs, _flat((args, kwargs)), strict=True)
            known = {id(tensor): value for tensor, value in given}
            return self._graph(known, operation.outputs)
        handler = _handler(operation)
        if handler is not None:
            return handler(self.builder, operation, *args, **kwargs)
        kind = type(operation).__name__
        if not isinstance(operation, keras.layers.Layer):
            raise NotLowered(f"{kind} is not known")
        try:
            return self.enter("", operation.call, *args, **kwargs)
        except NotLowered as error:
            if type(operation).__module__.startswith("keras."):
                raise NotLowered(f"{kind} is not known") from error
            raise

    def enter(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Lowers what a function does with Keras tensors, for a batch of one image."""
        known: dict[int, Value] = {}
        placeholders = []  # kept, so that no other object gets the same id

        def placeholder(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            symbol = keras.KerasTensor(value.keras_shape)
            known[id(symbol)] = value
            placeholders.append(symbol)
            return symbol

        args, kwargs = keras.tree.map_structure(placeholder, (args, kwargs))
        if "training" in inspect.signature(function).parameters:
            kwargs["training"] = False
        with _symbolic_operators():
            try:
                result = function(*args, **kwargs)
            except Exception as error:  # of other people's code
                raise NotLowered(_why_not_followed(error)) from error
        flat = keras.tree.flatten(result)
        self._entered += 1
        try:
            symbols = [each for each in flat if isinstance(each, keras.KerasTensor)]
            with self.builder.inside(name):
                values = iter(self._graph(known, symbols))
        finally:
            self._entered -= 1
        lowered = [
            next(values) if isinstance(each, keras.KerasTensor) else constant(each) for each in flat
        ]
        return keras.tree.pack_sequence_as(result, lowered)

    def _graph(self, known: dict[int, Value], outputs: Sequence[Any]) -> list[Value]:
        """Returns the values of tensors of a graph, from those of others."""
        pending = list(outputs)
        while pending:
            if id(pending[-1]) in known:
                pending.pop()
                continue
            history = pending[-1]._keras_history
            node = history.operation._inbound_nodes[history.node_index]
            missing = [each for each in node.input_tensors if id(each) not in known]
            if missing:
                pending += missing
                continue
            args, kwargs = keras.tree.map_structure(
                lambda each: known[id(each)] if isinstance(each, keras.KerasTensor) else each,
                (node.arguments.args, node.arguments.kwargs),
            )
            values = self.run(history.operation, args, kwargs)
            known.update(zip(map(id, node.output_tensors), values, strict=True))
        return [known[id(each)] for each in outputs]

    def _name(self, operation: Any) -> str:
        """Returns the name of an operation, in a layer's own code without its counter.

        Such a counter says how many others the process made before, not which one it is.
        """
        name = str(operation.name)
        automatic = re.sub(r"_\d+$", "", name).replace("re_lu", "relu")
        same = automatic.replace("_", "") == type(operation).__name__.lower()
        return automatic if self._entered and same else name


def _why_not_followed(error: Exception) -> str:
    """Returns why code did not run on tensors without values."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    for sign, library in _LIBRARIES.items():
        if sign in text:
            return f"its code calls {library}"
    # Around an error in a layer's call Keras says where.
    cause = text.rpartition("Exception encountered when calling ")[2].partition(".call().")
    first = one_line((cause[2] or cause[0]).strip().partition("\n")[0]) or type(error).__name__
    short = first if len(first) <= _MAX_CAUSE else f"{first[: _MAX_CAUSE - 1]}…"
    return f"its code cannot be followed: {short}"


def _handler(operation: Any) -> Handler | None:
    """Returns what lowers an operation; None of a layer whose own code has to be entered."""
    kind: Any = type(operation)
    if not isinstance(operation, keras.layers.Layer):
        return OPERATIONS.get(kind.__name__) if kind.__module__.startswith("keras.") else None
    known: Any = next((each for each in kind.__mro__ if each in LAYERS), None)
    return LAYERS[known] if known is not None and kind.call is known.call else None


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments that are not None."""
    return {name: value for name, value in kwargs.items() if value is not None}


def _flat(values: Any) -> list[Value]:
    flat: list[Value] = keras.tree.flatten(values)
    return flat


@contextmanager
def _symbolic_operators() -> Iterator[None]:
    """Lets ``variable + tensor`` and ``array + tensor`` record what ``tensor + variable`` does.

    Keras computes the first eagerly, which fails with a tensor that has no values.
    """

    def symbolic(eager: Any, function: Any) -> Any:
        def operator(self: Any, other: Any) -> Any:
            is_symbolic = isinstance(other, keras.KerasTensor)
            return function(self, other) if is_symbolic else eager(self, other)

        return operator

    kept = {f"__{name}__": getattr(keras.Variable, f"__{name}__") for name in _OPERATORS}
    for name, function in _OPERATORS.items():
        method = f"__{name}__"
        setattr(keras.Variable, method, symbolic(kept[method], function))
    keras.KerasTensor.__array_ufunc__ = None
    try:
        yield
    finally:
        for method, eager in kept.items():
            setattr(keras.Variable, method, eager)
        del keras.KerasTensor.__array_ufunc__
