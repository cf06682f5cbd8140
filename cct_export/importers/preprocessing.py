"""Preprocessing that was done outside of a model, as layers of it: its file takes camera bytes."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidRequest
from cct_export.importers.equivalence import logits, probe_images
from cct_export.model.checkpoint import image_shape
from cct_export.model.outputs import activation_of, inner_graph
from cct_export.specs import Normalization

log = logging.getLogger(__name__)

_CAFFE = Normalization(channels="bgr", mean=(103.939, 116.779, 123.68))
_ONE_TO_ONE = Normalization(scale=1 / 127.5, mean=(1.0,))
_IMAGENET = Normalization(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# What keras.applications trained its models with, by how their names begin, in any case.
_TRAINED_WITH = {
    r"resnet\d+v2|mobilenet|inception_|xception|nasnet": _ONE_TO_ONE,
    r"resnet(50|101|152)|vgg1[69]": _CAFFE,
    r"densenet|efficientnetv2-b|convnext": _IMAGENET,
    r"efficientnetv2-[sml]": Normalization(scale=1 / 128, mean=(1.0,)),
}

# Layers of Keras around code that it does not follow.
_PROGRAMS = ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")


def with_normalization(model: keras.Model, normalization: Normalization) -> keras.Model:
    """Returns a model that takes raw RGB or grey pixels, 0–255, and normalizes them itself.

    Args:
        model: with one image as input, which it takes normalized; it stays unchanged.
        normalization: of the pixels.

    Raises:
        InvalidRequest: it has numbers for other channels than the images, or the model takes
            integers.
    """
    (tensor,) = model.inputs
    normalization.check_channels(tensor.shape[-1])
    if normalization.is_identity:
        return model
    if not tensor.dtype.startswith(("float", "bfloat")):
        raise InvalidRequest(
            f"{model.name} takes {tensor.dtype} pixels, which normalizing would round: leave "
            f"{normalization} out"
        )
    _note(model, normalization)
    image = keras.Input(batch_shape=tensor.shape, dtype="float32")
    pixels = image
    if normalization.channels == "bgr":
        pixels = keras.ops.take(pixels, [2, 1, 0], axis=-1)
    if normalization.rescaling != (1.0, 0.0):
        pixels = keras.layers.Rescaling(*normalization.rescaling, dtype="float32")(pixels)
    return _named_as(model, keras.Model(image, model(pixels), name=model.name))


def _note(model: keras.Model, normalization: Normalization) -> None:
    """Says what a user may not have meant."""
    if scales_pixels(model):
        log.info(
            "%s scales pixels itself too: it gets what %s makes of them", model.name, normalization
        )
    if not _mixes_units(normalization):
        return
    scales, offsets = map(np.asarray, normalization.rescaling)
    advice = "; if they are of pixels from 0 to 1, add --scale 1/255"
    log.warning(
        "%s gets values from %.3g to %.3g with %s: --mean and --std are of the scaled pixels, 0 to "
        "%.3g%s",
        model.name,
        offsets.min(),
        (255 * scales + offsets).max(),
        normalization,
        255 * normalization.scale,
        advice if normalization.scale == 1 else "",
    )


def _mixes_units(normalization: Normalization) -> bool:
    """Returns whether the numbers seem to be of differently scaled pixels.

    The values span below 0.05 or above 300, or the mean is no 1 to 100 % of the brightest pixel.
    """
    brightest = 255 * normalization.scale
    spans = [brightest / std for std in normalization.std or (1.0,)]
    mean = max(map(abs, normalization.mean), default=0.0)
    is_mean_of_pixels = mean == 0 or 0.01 * brightest <= mean <= brightest
    return min(spans) < 0.05 or max(spans) > 300 or not is_mean_of_pixels


def with_softmax(model: keras.Model) -> keras.Model:
    """Returns ``model`` with a softmax over the last axis of every output.

    Args:
        model: Functional or Sequential; it stays unchanged.

    Raises:
        InvalidRequest: an output is of probabilities already, or a single number.
    """
    for index, tensor in enumerate(model.outputs):
        activation = activation_of(model, index)
        if activation in ("softmax", "sigmoid"):
            raise InvalidRequest(
                f"{model.name} ends in a {activation} already: leave --softmax out"
            )
        if not activation:
            _check_values(model, tensor)
        if tensor.shape[-1] == 1:
            raise InvalidRequest(
                f"{model.name} has a single output, of which a softmax is always 1: leave "
                "--softmax out"
            )
    outputs = [keras.layers.Softmax(dtype="float32")(tensor) for tensor in model.outputs]
    single = outputs[0] if len(outputs) == 1 else outputs
    return _named_as(model, keras.Model(model.inputs[0], single, name=model.name))


def _check_values(model: keras.Model, tensor: Any) -> None:
    """Raises ``InvalidRequest`` if an output, of which the graph tells nothing, is probabilities.

    Args:
        model: of one image.
        tensor: its output.
    """
    images = probe_images(image_shape(model))
    values = logits(keras.Model(model.inputs[0], tensor), images).reshape(-1, tensor.shape[-1])
    if values.min() < 0 or values.max() > 1:
        return
    if np.allclose(values.sum(axis=1), 1, atol=1e-3):
        kind, how = "softmax", "sum to 1"
    else:
        kind, how = "sigmoid", "are from 0 to 1"
    raise InvalidRequest(
        f"the values that {model.name} gives for test images {how}, as those of a {kind}: leave "
        "--softmax out"
    )


def _named_as(model: keras.Model, changed: keras.Model) -> keras.Model:
    """Returns ``changed``, whose several outputs get the names that they have in ``model``."""
    if len(model.outputs) > 1:
        changed.output_names = list(model.output_names)
    return changed


def pixels_warning(model: keras.Model) -> str:
    """Returns that a model gets raw pixels though it may need others; empty if it scales them.

    Args:
        model: Functional or Sequential, with one image as input.
    """
    scales = scales_pixels(model)
    if scales:
        return ""
    kind = "RGB" if image_shape(model)[-1] == 3 else "grey"
    options = "pass --mean, --std, --scale or --channels"
    if scales is None:
        return (
            f"it cannot be told whether {model.name} scales pixels, and it gets {kind} from 0 to "
            f"255: if it was trained with others and does not make them itself, {options}, else "
            "--scale 1"
        )
    known = next(filter(None, map(_trained_with, _names(model))), None)
    advice = (
        f"if it was trained with others, {options}, and --scale 1 if not"
        if known is None
        else f"{known[0]} of keras.applications was trained with {known[1]}: pass that, or "
        "--scale 1 if yours was trained with raw pixels"
    )
    return f"no layer scales the pixels, and the model gets {kind} from 0 to 255: {advice}"


def _names(model: Any) -> Iterator[str]:
    """Yields the names of a model and of the models in it."""
    yield model.name
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _names(layer)


def _trained_with(name: str) -> tuple[str, Normalization] | None:
    for beginning, normalization in _TRAINED_WITH.items():
        if re.match(beginning, name, re.IGNORECASE):
            return name, normalization
    return None


def black_and_white(shape: ImageShape, batch: int | None) -> np.ndarray:
    """Returns an image that is half black and half white, float32 ``(batch or 1, *shape)``."""
    image = np.zeros((batch or 1, *shape), np.float32)
    image[:, :, shape[1] // 2 :] = 255
    return image


def are_raw(pixels: np.ndarray) -> bool:
    """Returns whether the pixels of ``black_and_white`` still are 0 and 255, wherever."""
    return np.allclose((pixels.min(), pixels.max()), (0, 255), atol=1e-3)


def scales_pixels(model: keras.Model) -> bool | None:
    """Returns whether a model changes the values of pixels before the first layer with weights.

    What is in front of that layer is run on an image that is half black and half white: any scaling
    shows in what it makes of it. A normalization by learned numbers scales.

    Args:
        model: Functional or Sequential, with one image as input.

    Returns:
        None where it cannot be told: the pixels reach code that Keras does not follow, or no layer
        with weights.
    """
    return _scales(model, black_and_white(image_shape(model), model.inputs[0].shape[0]))


def _scales(model: keras.Model, image: Any) -> bool | None:
    if len(model.inputs) != 1:
        return None
    graph = keras.Model(model.inputs[0], model.outputs)
    untouched, first = {id(graph.inputs[0])}, []
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.input_tensors or not {id(each) for each in node.input_tensors} <= untouched:
                continue  # an input, or behind a layer with weights
            if getattr(node.operation, "weights", ()) or _may_have_weights(node):
                first.append((node.operation, node.input_tensors[0]))
            else:
                untouched |= {id(each) for each in node.output_tensors}
    if not first:
        return None
    front = keras.Model(graph.inputs[0], [tensor for _, tensor in first])
    reached = keras.tree.flatten(front(image, training=False))
    answers = {
        _layer_scales(operation, keras.ops.convert_to_numpy(values))
        for (operation, _), values in zip(first, reached, strict=True)
    }
    # One branch without scaling is enough.
    return False if False in answers else None if None in answers else True


def _may_have_weights(node: Any) -> bool:
    """Returns whether code that Keras does not follow makes something else than an image."""
    before, after = node.input_tensors[0].shape, node.output_tensors[0].shape
    is_image = (len(after), after[-1:]) == (len(before), before[-1:])
    return not is_image and _is_opaque(node.operation, before)


def _is_opaque(operation: Any, shape: tuple[int | None, ...]) -> bool:
    kind = type(operation)
    is_program = not kind.__module__.startswith("keras.") or kind.__name__ in _PROGRAMS
    return is_program and inner_graph(operation, shape) is None


def _layer_scales(operation: Any, pixels: np.ndarray) -> bool | None:
    """Returns whether a layer with weights gets other values than raw pixels, or scales those."""
    if type(operation).__name__.endswith("Normalization") or not are_raw(pixels):
        return True
    if _is_opaque(operation, pixels.shape):
        return getattr(operation, "scales_pixels", None)
    inner = inner_graph(operation, pixels.shape)
    return inner is not None and _scales(inner, pixels[: inner.inputs[0].shape[0]])
