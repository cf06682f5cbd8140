"""The layers in front of a classifier: numbers, sizes, and what only training needs."""

from typing import Any

import keras
import numpy as np
from keras import layers

from cct_export.graph.lowering import windows
from cct_export.graph.lowering.builder import (
    Builder,
    Handler,
    NotLowered,
    Tensor,
    constant,
    tensor,
)
from cct_export.graph.steps import Array

# They return their input at inference.
TRAINING_ONLY = (
    "ActivityRegularization",
    "AlphaDropout",
    "AugMix",
    "CutMix",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)


def _identity(builder: Builder, layer: Any, x: Any, *arguments: Any) -> Any:
    return x


def _per_channel(value: Any) -> Array:
    """Returns a number, or one for each channel, as an array of one axis."""
    array = constant(value)
    if array.size != (array.shape[-1] if array.ndim else 1):
        raise NotLowered("it has other numbers than one for each channel")
    return array.reshape(-1)


def _rescaling(builder: Builder, layer: Any, x: Any) -> Tensor:
    return builder.affine(tensor(x), _per_channel(layer.scale), _per_channel(layer.offset))


def _normalization(builder: Builder, layer: Any, x: Any) -> Tensor:
    mean = _per_channel(layer.mean)
    variance = _per_channel(layer.variance)
    if len(mean) > 1 and tensor(x).axes(layer.axis) != (len(x.shape) - 1,):
        raise NotLowered("it has other numbers than one for each channel")
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return builder.affine(tensor(x), deviation, mean)
    return builder.affine(tensor(x), 1 / deviation, -mean / deviation)


def _resizing(builder: Builder, layer: Any, x: Any) -> Tensor:
    return windows.resize(builder, layer, tensor(x), (layer.height, layer.width))


def _crop(builder: Builder, layer: Any, x: Any) -> Tensor:
    """Crops the centre; at inference a random crop is that or the whole image."""
    y = tensor(x)
    if y.shape[:2] == (layer.height, layer.width):
        return y
    if isinstance(layer, layers.RandomCrop) or layer.data_format != "channels_last":
        raise NotLowered("a crop that resizes")
    for axis, size in enumerate((layer.height, layer.width)):
        start = int((y.shape[axis] - size) / 2)
        if start < 0:
            raise NotLowered("a crop that resizes")
        y = builder.select(y, axis, start, start + size)
    return y


LAYERS: dict[type, Handler] = {
    **{getattr(layers, name): _identity for name in TRAINING_ONLY},
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.Resizing: _resizing,
    layers.CenterCrop: _crop,
    layers.RandomCrop: _crop,
}
