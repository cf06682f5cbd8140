"""Configurations that Keras 2 wrote, as Keras 3 writes them: the same layers, the same weights.

Keras 2 says more of some layers (``groups`` of a depthwise convolution, ``time_major`` of a
recurrent one), names other modules, and writes the functions of TensorFlow that a model calls on
its tensors (``x / 255``, ``preprocess_input`` of its applications) as layers, for which there are
layers here.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from cct_export.specs import JSONObject
from cct_export.untrusted import Malformed

# What Keras 2 says of a layer and Keras 3 does not know: it changes nothing where it is so.
_IMPLIED: dict[str, Any] = {
    "time_major": False,
    "ragged": False,
    "renorm": False,
    "virtual_batch_size": None,
    "adjustment": None,
    "softmax_robust_masking": False,
}
# What makes no difference at inference.
_WITHOUT_EFFECT = ("rng_type", "query_shape", "key_shape", "value_shape", "fused")
_MODULES = {"Functional": "keras.src.models.functional", "Sequential": "keras", "Model": "keras"}
# Convolutions of these kinds inherit settings of Conv2D that they do not use.
_UNUSED = {
    "DepthwiseConv": ("groups",),
    "SeparableConv": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "Conv2DTranspose": ("groups",),
    "Conv1DTranspose": ("groups",),
}
_CONSTANT = "_CONSTANT_VALUE"
_ELLIPSIS = {"class_name": "__ellipsis__"}


def translated(saved: Any) -> Any:
    """Returns the configuration of a model, or a part of one, as Keras 3 writes it.

    Args:
        saved: as Keras 2 wrote it, with JSON types; it is not changed.

    Raises:
        Malformed: a layer has a setting that Keras 3 has not.
    """
    if isinstance(saved, list):
        return [translated(part) for part in saved]
    if not isinstance(saved, dict):
        return saved
    config = saved.get("config")
    if not isinstance(saved.get("class_name"), str) or not isinstance(config, dict):
        return {name: translated(value) for name, value in saved.items()}
    if saved["class_name"] == "Policy":
        return config["name"]
    return _translated_object(saved, config)


def _with_module(saved: JSONObject) -> JSONObject:
    """Returns the configuration of an object with the module of Keras 3 that has its class."""
    kind = saved["class_name"]
    if kind in _MODULES or hasattr(keras.layers, kind):
        return saved | {"module": _MODULES.get(kind, "keras.layers"), "registered_name": None}
    return saved | {"registered_name": saved.get("registered_name") or kind}


def _translated_object(saved: JSONObject, config: JSONObject) -> JSONObject:
    kind = saved["class_name"]
    fields = _with_module(saved | {"config": _translated_settings(kind, config)})
    if kind not in _MODULES:
        fields.pop("build_config", None)  # its graph builds it
    return fields


def _translated_settings(kind: str, config: JSONObject) -> JSONObject:
    unused = [name for start, names in _UNUSED.items() if kind.startswith(start) for name in names]
    known = {
        name: translated(value)
        for name, value in config.items()
        if name not in (*_WITHOUT_EFFECT, *unused)
    }
    for name in _IMPLIED.keys() & config.keys():
        if known.pop(name) != _IMPLIED[name]:
            raise Malformed(f"Keras 3 has no {name} of {config[name]!r} for {kind}")
    shape = known.pop("batch_input_shape", None)
    if kind == "InputLayer" and shape is not None:
        known["batch_shape"] = shape
    if kind == "BatchNormalization" and isinstance(known.get("axis"), list):
        (known["axis"],) = known["axis"]
    if kind == "Sequential":
        known["layers"] = _with_input(config["layers"], known["layers"])
    calls = [node for layer in known.get("layers", ()) for node in layer.get("inbound_nodes", ())]
    if any(isinstance(call, list) for call in calls):
        _translate_calls(known)
    return known


def _with_input(saved: list[Any], layers: list[Any]) -> list[Any]:
    """Returns the layers of a Sequential model, after the input that the first of them names."""
    first = saved[0] if saved else {}
    shape = first.get("config", {}).get("batch_input_shape")
    if first.get("class_name") == "InputLayer" or shape is None:
        return layers
    image = {"batch_shape": shape, "dtype": "float32", "name": "image"}
    return [{"module": "keras.layers", "class_name": "InputLayer", "config": image}, *layers]


def _translate_calls(model: JSONObject) -> None:
    """Rewrites how the layers of a functional model are called on each other's outputs.

    Keras 2 counts the graph inside a nested model as its first call.
    """
    kinds = {layer["name"]: layer["class_name"] for layer in model["layers"]}
    nested = {name for name, kind in kinds.items() if kind in _MODULES}
    for layer in model["layers"]:
        layer["inbound_nodes"] = [_call(node, nested) for node in layer["inbound_nodes"]]
    # Here Keras 3 does the same, but not for these.
    sequential = {name for name in nested if kinds[name] == "Sequential"}

    def end(saved: Any) -> Any:
        if isinstance(saved, dict):
            return {name: end(value) for name, value in saved.items()}
        if not isinstance(saved[0], str):
            return list(map(end, saved)) if len(saved) > 1 else end(saved[0])
        return [saved[0], saved[1] - (saved[0] in sequential), saved[2]]

    for ends in ("input_layers", "output_layers"):
        model[ends] = end(model[ends])


def _call(node: Any, nested: set[str]) -> Any:
    """Returns a call: positional and named arguments in place of a list of tensors."""
    if not isinstance(node, list) or not node:
        return node
    entries = [node] if isinstance(node[0], str) else node
    keywords: JSONObject = {}
    tensors = []
    for layer, index, output, *named in entries:
        if layer == _CONSTANT:
            keywords["x"] = output
        else:
            tensors.append(_tensor(layer, index - (layer in nested), output))
        for name, value in (named[0] if named else {}).items():
            keywords[name] = _argument(value, nested)
    if not tensors:  # a function of a constant and one tensor
        tensors = [keywords.pop("y")]
    return {"args": [tensors if len(tensors) > 1 else tensors[0]], "kwargs": keywords}


def _argument(value: Any, nested: set[str]) -> Any:
    if isinstance(value, list) and _ELLIPSIS in value:
        return ["..." if part == _ELLIPSIS else part for part in value]
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        layer, index, output = value
        return _tensor(layer, index - (layer in nested), output)
    return value


def _tensor(layer: str, index: int, output: int) -> JSONObject:
    """Returns a reference to an output of a call of a layer; Keras looks up its shape."""
    config = {"shape": [None], "dtype": "float32", "keras_history": [layer, index, output]}
    return {"class_name": "__keras_tensor__", "config": config}


class TFOpLambda(keras.layers.Layer):
    """A function of TensorFlow that a model of Keras 2 calls on its tensors.

    Args:
        function: its name below ``tf``, a key of ``FUNCTIONS``.
        **settings: those of every layer.

    Raises:
        Malformed: another function.
    """

    def __init__(self, function: str, **settings: Any) -> None:
        super().__init__(**settings)
        if function not in FUNCTIONS:
            raise Malformed(
                f"{self.name} calls tf.{function}, which is no layer of Keras 3: save the model as "
                "a SavedModel"
            )
        self.function = function

    def call(self, tensor: Any, **keywords: Any) -> Any:
        """Returns what the function gives; ``name`` and what is not set have no effect."""
        given = {name: value for name, value in keywords.items() if value is not None}
        given.pop("name", None)
        return FUNCTIONS[self.function](tensor, **given)

    def get_config(self) -> JSONObject:
        """Returns the settings."""
        return {**super().get_config(), "function": self.function}


class SlicingOpLambda(TFOpLambda):
    """A tensor indexed in a model of Keras 2, such as ``x[..., ::-1]``."""


CLASSES = {kind.__name__: kind for kind in (TFOpLambda, SlicingOpLambda)}


def _indexed(tensor: Any, slice_spec: Any) -> Any:
    """Returns a part of a tensor; a slice is a dict with ``start``, ``stop`` and ``step``."""

    def index(part: Any) -> Any:
        if isinstance(part, dict) and "start" in part:
            return slice(part["start"], part["stop"], part["step"])
        return ... if part == "..." else part

    parts = slice_spec if isinstance(slice_spec, list | tuple) else [slice_spec]
    return tensor[tuple(map(index, parts))]


def _on_two(function: Callable[[Any, Any], Any], name: str = "y") -> Callable[..., Any]:
    """Returns a function of a tensor and of another, or of numbers, called ``name``."""

    def call(tensor: Any, **others: Any) -> Any:
        other = others["x"] if "x" in others else others[name]
        if isinstance(other, list):
            other = np.asarray(other, keras.backend.standardize_dtype(tensor.dtype))
        return function(other, tensor) if "x" in others else function(tensor, other)

    return call


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tensor, axis=None, keepdims=False: function(tensor, axis=axis, keepdims=keepdims)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "__operators__.add": _on_two(ops.add),
    "__operators__.getitem": _indexed,
    "cast": ops.cast,
    "concat": lambda tensors, axis: ops.concatenate(tensors, axis=axis),
    "identity": lambda tensor: tensor,
    "math.add": _on_two(ops.add),
    "math.divide": _on_two(ops.true_divide),
    "math.multiply": _on_two(ops.multiply),
    "math.negative": ops.negative,
    "math.reduce_max": _reduced(ops.max),
    "math.reduce_mean": _reduced(ops.mean),
    "math.reduce_sum": _reduced(ops.sum),
    "math.sigmoid": ops.sigmoid,
    "math.sqrt": ops.sqrt,
    "math.square": ops.square,
    "math.subtract": _on_two(ops.subtract),
    "math.tanh": ops.tanh,
    "math.truediv": _on_two(ops.true_divide),
    "nn.bias_add": _on_two(ops.add, "bias"),
    "nn.gelu": lambda tensor, approximate=False: ops.gelu(tensor, approximate=approximate),
    "nn.relu": ops.relu,
    "nn.relu6": ops.relu6,
    "nn.silu": lambda tensor, **_: ops.silu(tensor),
    "nn.softmax": lambda tensor, axis=-1: ops.softmax(tensor, axis=axis),
    "reshape": lambda tensor, shape: ops.reshape(tensor, newshape=shape),
    "squeeze": lambda tensor, axis=None: ops.squeeze(tensor, axis=axis),
    "transpose": lambda tensor, perm=None: ops.transpose(tensor, axes=perm),
}
