"""Configurations that name the keras.io example's classes, with layers of this package in place."""

from collections.abc import Iterator
from typing import Any

import keras

from cct_export.importers.example_file import Content, Kinds
from cct_export.importers.example_layers import CLASSES
from cct_export.importers.example_tokenizer import EXAMPLE, Stages, geometry_of
from cct_export.model.blocks import gelu_tanh
from cct_export.specs import JSONObject
from cct_export.untrusted import Malformed

_OF_ANY_LAYER = ("name", "trainable", "dtype", "autocast", "activity_regularizer")
# Constructor arguments of the example's classes; those of its tokenizer by the setting they are.
_GEOMETRY = {
    "stride": "stride",
    "padding": "margin",
    "pooling_kernel_size": "pool",
    "pooling_stride": "pool_stride",
}
_IN_SHAPES = ("kernel_size", "num_conv_layers", "num_output_channels", "positional_emb")
_ARGUMENTS = {
    "CCTTokenizer": (*_GEOMETRY, *_IN_SHAPES, "activation"),
    "PositionEmbedding": ("sequence_length", "initializer"),
    "SequencePooling": (),
}


def own_layers(config: Any) -> list[JSONObject]:
    """Returns the layers of the example's classes in a configuration, at any depth."""
    return [each for each in objects(config) if _is_own(each)]


def translated(
    config: JSONObject, content: Content, gelu: str
) -> tuple[JSONObject, tuple[str, ...]]:
    """Returns a configuration that needs none of the example's code.

    Args:
        config: of a model with layers of the example's classes.
        content: of the file with its weights.
        gelu: one of ``GELUS``, for what the configuration calls ``gelu``.

    Returns:
        The configuration, and what was assumed, a line each.

    Raises:
        Malformed: its code may do something else than the example's, or cannot be told from it.
    """
    notes: list[str] = []

    def translate(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(translate, value))
        if not isinstance(value, dict):
            return value
        fields = {name: translate(each) for name, each in value.items()}
        if fields.get("activation") == "gelu" and gelu == "tanh":
            fields["activation"] = keras.saving.serialize_keras_object(gelu_tanh)
        return _with_own_class(fields) if _is_own(value) else fields

    def _with_own_class(layer: JSONObject) -> JSONObject:
        kind, settings = layer["class_name"], _settings(layer)
        arguments: JSONObject = {}
        if kind == "CCTTokenizer":
            arguments["stages"], assumed = _stages(layer, settings, config, content.tokenizer)
            notes.extend(assumed)
        elif kind == "PositionEmbedding":
            arguments["adds"] = _is_only_reader(layer, config)
        elif kind == "SequencePooling":
            arguments["use_bias"] = content.has_score_bias
        of_any = {key: value for key, value in layer["config"].items() if key in _OF_ANY_LAYER}
        name = layer.get("name") or layer["config"].get("name")
        own = CLASSES[kind]
        return layer | {
            "module": own.__module__,
            "registered_name": keras.saving.get_registered_name(own),
            "config": {**of_any, "name": name, **arguments},
        }

    return translate(config), tuple(notes)


def objects(value: Any) -> Iterator[JSONObject]:
    """Yields every object in a configuration."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from objects(each)


def _is_own(layer: JSONObject) -> bool:
    registered = str(layer.get("registered_name"))
    is_example = str(layer.get("class_name")) in CLASSES and isinstance(layer.get("config"), dict)
    return is_example and not registered.startswith("cct_export>")


def _settings(layer: JSONObject) -> JSONObject:
    """Returns the arguments that a layer of the example's was made with; refuses unknown ones."""
    kind = layer["class_name"]
    settings = {key: value for key, value in layer["config"].items() if key not in _OF_ANY_LAYER}
    if kind == "StochasticDepth":  # whatever it is told, it does nothing at inference
        return {}
    for name, value in settings.items():
        if name not in _ARGUMENTS[kind] and not _layer_configs(value):
            raise Malformed(
                f"its {kind} has an argument {name}, which the example's has not: name the file of "
                "its code with --import FILE.py"
            )
    return settings


def _stages(
    layer: JSONObject, settings: JSONObject, config: JSONObject, kinds: Kinds
) -> tuple[list[Any], list[str]]:
    """Returns the configurations of a tokenizer's layers, and what was assumed."""
    for value in settings.values():
        if configured := _layer_configs(value):
            return configured, []
    activation = settings.get("activation")
    if activation is not None and not isinstance(activation, str | dict):
        raise Malformed(f"the activation of its tokenizer is {activation!r}")
    given: dict[str, Any] = {
        field: settings[name] for name, field in _GEOMETRY.items() if name in settings
    }
    if isinstance(given.get("margin"), str):
        given["conv_padding"] = given.pop("margin")
    for name, value in given.items():
        if (name == "conv_padding") != isinstance(value, str) or not _is_usual(value):
            raise Malformed(f"its tokenizer has {name} of {value!r}")
    stages = Stages(kinds, activation, given)
    stages.check()
    height, width = _image(layer)
    tokens = _tokens(layer, config)
    geometry = EXAMPLE if tokens is None else geometry_of(stages, (height, width), tokens)
    made = [keras.saving.serialize_keras_object(each) for each in stages.layers(geometry)]
    return made, stages.assumptions(geometry)


def _is_usual(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("valid", "same")
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 64


def _layer_configs(value: Any) -> list[Any]:
    """Returns the configurations of layers in an argument; none if it is something else."""
    if isinstance(value, dict) and value.get("class_name") == "Sequential":
        value = value["config"]["layers"]
    is_layers = isinstance(value, list) and all(
        isinstance(each, dict) and "class_name" in each and "config" in each for each in value
    )
    layers = value if is_layers else []
    return [each for each in layers if each["class_name"] != "InputLayer"]


def _image(layer: JSONObject) -> tuple[int, int]:
    """Returns height and width of what a tokenizer gets."""
    shapes = [shape for shape, _ in _tensors(layer.get("inbound_nodes"))]
    shape = shapes[0] if shapes else layer["build_config"]["input_shape"]
    _, height, width, _ = shape
    if not (isinstance(height, int) and isinstance(width, int)):
        raise Malformed(f"its tokenizer takes images of any size, {shape}")
    return height, width


def _tokens(layer: JSONObject, config: JSONObject) -> int | None:
    """Returns how many tokens a tokenizer gives, by the layers that read them; None if not said."""
    name = layer.get("name") or layer["config"].get("name")
    for shape, history in _tensors(config):
        if history[0] == name:
            if len(shape) != 3 or not isinstance(shape[1], int):
                raise Malformed(f"its tokenizer gives {shape}, and the example's gives tokens")
            return int(shape[1])
    return None


def _tensors(config: Any) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yields shape and origin of each tensor that layers read."""
    for each in objects(config):
        if each.get("class_name") == "__keras_tensor__":
            yield each["config"]["shape"], each["config"]["keras_history"]


def _is_only_reader(layer: JSONObject, config: JSONObject) -> bool:
    """Returns whether nothing else reads the tokens that a layer reads: it adds to them itself."""
    read = [history for _, history in _tensors(layer.get("inbound_nodes"))]
    count = sum(history == read[0] for _, history in _tensors(config)) if read else 1
    return count == 1
