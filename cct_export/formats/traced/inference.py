"""The part of a Keras model that inference needs."""

from typing import Any

import keras

from cct_export.errors import ConversionError


def inference_model(model: keras.Model) -> keras.Model:
    """Returns ``model`` without its augmentation layers, sharing its weights.

    Random flips, crops and the like do nothing at inference, but a tracer still records their
    random state: Keras' own ONNX export then writes operators that no runtime has. Layers of
    random augmentation that keep the shape are taken out; nested models are searched too.

    Args:
        model: a Functional or Sequential model of one input, built.

    Returns:
        A model with the same logits for the same images at ``training=False``.

    Raises:
        ConversionError: the model is subclassed, so that its layers cannot be taken apart.
    """
    if not _is_composed(model):
        raise ConversionError(
            f"{type(model).__name__} is a subclassed model: build it with the functional API"
        )
    (tensor,) = model.inputs
    image = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    return keras.Model(image, _apply(model, image))


def _apply(model: keras.Model, tensor: Any) -> Any:
    """Calls ``model`` on a symbolic tensor, leaving augmentation out."""
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            tensor = _call(layer, tensor)
        return tensor
    twin = keras.models.clone_model(
        model, input_tensors=tensor, clone_function=lambda layer: layer, call_function=_call
    )
    return twin.output


def _call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
    if _is_composed(layer):
        return _apply(layer, *arguments)
    if _is_augmentation(layer):
        (images,) = arguments
        if tuple(layer.compute_output_shape(images.shape)) == tuple(images.shape):
            return images
    return layer(*arguments, **keywords)


def _is_composed(layer: Any) -> bool:
    """Tells models whose layers are known: Sequential, or a functional graph of operations."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "operations")
    )


def _is_augmentation(layer: Any) -> bool:
    """Tells layers that change images at random while training, and only then.

    Keras gives them no public base class, so module and name tell them. Resizing, AutoContrast,
    Solarization and the like change images at inference too, and stay.
    """
    module = type(layer).__module__
    return "image_preprocessing" in module and type(layer).__name__.startswith(
        ("Rand", "Aug", "Mix", "Cut")
    )
