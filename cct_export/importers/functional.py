"""Any Keras model as the one kind that everything else works on.

That is a model of one image tensor, float32 pixels, and a flat list of outputs, whose layers
compute in float32. A model that is so already stays as it is; others share their layers with the
result, except where weights of another type are converted.
"""

import contextlib
import inspect
import logging
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from cct_export.errors import InvalidModel
from cct_export.importers.equivalence import logits, logits_agree, probe_images
from cct_export.model.checkpoint import check_classifier, image_shape
from cct_export.text import one_line

log = logging.getLogger(__name__)

_FLOAT = "float32"
_OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
_MAX_REASON = 200


def functional(model: keras.Model, where: str) -> keras.Model:
    """Returns a model with the same logits that maps one float32 image tensor to a flat list.

    Args:
        model: built, of any kind; it is not changed.
        where: what messages call it.

    Returns:
        ``model`` itself where nothing is to be done. Its input has shape ``(None, H, W, 1 or 3)``,
        with a fixed batch only where the graph allows no other; its outputs have the axes
        ``(batch, classes)`` or ``(batch, slots, classes)``, and ``output_names`` has their names.

    Raises:
        InvalidModel: not an image classifier, never called on an image, quantized by Keras, or
            of a layer that cannot compute in float32.
    """
    _check_not_quantized(model, where)
    model = _in_float32(model, where)
    if not _has_graph(model):
        model = _called(model, where)
    model = _unwrapped(model)
    check_classifier(model, where)
    return _of_any_batch(model, where)


def layers_of(model: keras.Model) -> list[Any]:
    """Returns a model with all of its layers at any depth, those inside other layers too."""
    layers: list[Any] = model._flatten_layers()
    return layers


def _has_graph(model: Any) -> bool:
    return bool(getattr(model, "inputs", None) and getattr(model, "outputs", None))


def _check_not_quantized(model: keras.Model, where: str) -> None:
    for layer in layers_of(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode:
            raise InvalidModel(
                f"{where} was quantized by Keras ({layer.name}: {mode}): export the float model, "
                "as it was before model.quantize; --quantize makes the integers"
            )


def _in_float32(model: keras.Model, where: str) -> keras.Model:
    """Returns ``model``, or one of its configuration in float32 with its weights."""
    policies = {layer.dtype_policy.name for layer in layers_of(model) if not _is_float32(layer)}
    if not policies:
        return model
    names = ", ".join(sorted(policies))
    try:
        config = keras.saving.serialize_keras_object(model)
        rebuilt = keras.saving.deserialize_keras_object(
            _with_float32(config), custom_objects=_own_objects(model), safe_mode=False
        )
        rebuilt.set_weights([np.asarray(weight, np.float32) for weight in model.get_weights()])
    # Layers raise any kind of exception; in each case there is no such model.
    except Exception as error:
        raise InvalidModel(
            f"{where} computes in {names} and cannot be rebuilt in float32: {_reason(error)}; "
            "build it under keras.config.set_dtype_policy('float32') and set its weights"
        ) from error
    for layer in layers_of(rebuilt):
        if not _is_float32(layer):
            raise InvalidModel(
                f"{where} cannot be rebuilt in float32: {layer.name} computes in "
                f"{layer.dtype_policy.name} whatever its configuration says"
            )
    log.info("%s computes in %s: rebuilt in float32, with the same weights", where, names)
    return rebuilt


def _is_float32(layer: Any) -> bool:
    policy = layer.dtype_policy
    return not {policy.compute_dtype, policy.variable_dtype} & set(_OTHER_FLOATS)


def _with_float32(config: Any) -> Any:
    """Returns a configuration with float32 in place of every other floating-point type."""
    if isinstance(config, dict):
        return {name: _with_float32(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(map(_with_float32, config))
    return _FLOAT if isinstance(config, str) and config in _OTHER_FLOATS else config


def _own_objects(model: keras.Model) -> dict[str, Any]:
    """Returns the classes of all layers, and the functions that they hold, by their names."""
    objects: dict[str, Any] = {}
    for layer in layers_of(model):
        objects[type(layer).__name__] = type(layer)
        objects |= {
            value.__name__: value for value in vars(layer).values() if inspect.isfunction(value)
        }
    return {name: value for name, value in objects.items() if not _is_of_keras(value)}


def _is_of_keras(value: Any) -> bool:
    return bool(value.__module__.partition(".")[0] == "keras")


def _called(model: Any, where: str) -> keras.Model:
    """Returns a functional model of one layer: a subclassed model, called on what it was built on.

    Raises:
        InvalidModel: it was never built, or cannot be called on symbols.
    """
    shapes = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if not shapes:
        raise InvalidModel(
            f"{where} is a {type(model).__name__} that was never called, so the size of its images "
            "is not known: call it on one, model(np.zeros((1, height, width, channels))), before "
            "it is exported or saved"
        )
    built_on: list[Any] = []
    keras.tree.map_shape_structure(built_on.append, shapes)
    if len(built_on) != 1:
        raise InvalidModel(
            f"{where} is not an image classifier: it was called on {len(built_on)} tensors "
            f"{built_on}, and needed is one image"
        )
    reason = ""
    for batch in dict.fromkeys((None, 1, built_on[0][0])):
        shape = (batch, *built_on[0][1:])
        inputs = keras.tree.map_shape_structure(lambda _: keras.Input(batch_shape=shape), shapes)  # noqa: B023
        try:
            outputs = model(inputs, training=False)
            return keras.Model(keras.tree.flatten(inputs)[0], outputs, name=model.name)
        # What a user's call does with a symbol may raise anything.
        except Exception as error:
            reason = _reason(error)
    raise InvalidModel(f"{where} cannot be exported: calling it fails: {reason}")


def _unwrapped(model: keras.Model) -> keras.Model:
    """Returns ``model`` with a tensor in place of a list or dict of one input, and flat outputs."""
    if len(model.inputs) != 1:
        return model
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    paths = keras.tree.flatten_with_path(model.output)
    has_keys = any(isinstance(key, str) for path, _ in paths for key in path)
    is_list_of_one = len(paths) == 1 and bool(paths[0][0])
    if not (has_keys or is_list_of_one or keras.tree.is_nested(model.input)):
        return model
    names = [_name(path, tensor) for path, tensor in paths]
    outputs = [tensor for _, tensor in paths]
    flat = keras.Model(
        model.inputs[0], outputs if len(outputs) > 1 else outputs[0], name=model.name
    )
    flat.output_names = _distinct(names)
    return flat


def _name(path: tuple[Any, ...], tensor: Any) -> str:
    """Returns the keys of an output in a dict, else the name of the layer that computes it."""
    keys = [str(key) for key in path] if any(isinstance(key, str) for key in path) else []
    return "_".join(keys) or str(tensor._keras_history.operation.name)


def _distinct(names: Iterable[str]) -> list[str]:
    """Returns names, numbered where one occurs twice."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in range(1, 1 + len(distinct)))
        distinct.append(
            name if name not in distinct else next(n for n in numbered if n not in distinct)
        )
    return distinct


def _of_any_batch(model: keras.Model, where: str) -> keras.Model:
    """Returns ``model`` for any number of float32 images, else for one, else as it is.

    The layers are called again on another input; equal logits show that nothing else changed.
    """
    (image,) = model.inputs
    batch = image.shape[0]
    if batch is None and image.dtype == _FLOAT:
        return model
    images = np.round(probe_images(image_shape(model)))  # a model may take integers
    expected = logits(model, images)
    for size in dict.fromkeys((None, 1)):
        # Layers raise any kind of exception for a shape that they do not take.
        with contextlib.suppress(Exception):
            again = _again(model, size)
            if logits_agree(logits(again, images), expected):
                if batch not in (None, size):
                    taken = "any number of them" if size is None else "one"
                    log.info("%s takes %d images at a time: rebuilt for %s", where, batch, taken)
                return again
    return model


def _again(model: keras.Model, batch: int | None) -> keras.Model:
    """Returns the layers of ``model``, called on a float32 image of another batch."""
    (image,) = model.inputs
    tensor = keras.Input(batch_shape=(batch, *image.shape[1:]), dtype=_FLOAT, name=image.name)
    again = keras.models.clone_model(
        model, input_tensors=tensor, clone_function=lambda layer: layer
    )
    if any(output.shape[0] != batch for output in again.outputs):
        raise ValueError("the batch is part of its shapes")
    again.output_names = model.output_names
    return again


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return one_line(text)[:_MAX_REASON] or type(error).__name__
