"""Data augmentation inside the training step, with Keras' preprocessing layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cct_export.errors import InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.training.jpeg import JpegCompression

_PIXELS = (0, 255)
# Strengths of RandAugment at magnitude 10, after timm. Keras' RandAugment has one factor for all
# operations: at 0.9 it rotates by up to 162 degrees and posterizes to few bits.
_ROTATION_DEGREES = 30.0
_SHEAR = 0.3
_TRANSLATION = 0.45
_POSTERIZE_BITS = 4
# Keras adds to the pixels where timm multiplies them by 0.1 to 1.9: the same for a middle gray.
_BRIGHTNESS = 0.45
_JPEG_PROBABILITY = 0.5
# From heavy to hardly visible compression, as photographs are found.
_JPEG_QUALITY = (50, 95)


def check(recipe: TrainSpec, channels: int) -> None:
    """Checks, before any work, that images can be augmented.

    Args:
        recipe: which augmentation.
        channels: of the images.

    Raises:
        InvalidRequest: they cannot.
    """
    if recipe.augment == "jpeg" and channels not in (1, 3):
        raise InvalidRequest(
            f"augment jpeg: JPEG images have 1 or 3 channels, not {channels}: leave augment at none"
        )


class _LayerFactory:
    """Makes preprocessing layers that compute in float32, each with a seed of its own.

    Layers with one seed would draw the same numbers: images would be flipped where they are
    shifted left.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.sequence = np.random.SeedSequence(seed)

    def seed(self) -> int:
        """Returns the next seed, 0 to 2^32 - 1."""
        return int(self.sequence.spawn(1)[0].generate_state(1)[0])

    def __call__(self, kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Returns a layer of ``kind``."""
        layer = kind(*arguments, seed=self.seed(), dtype="float32", **options)
        if keras.backend.backend() == "jax":
            # Keras excludes geometric layers from compilation since TensorFlow's XLA lacks the
            # operator; JAX has it.
            layer.supports_jit = True
        return layer


class Augmentation(layers.Layer):
    """Augments a batch of images, and mixes their targets with MixUp and CutMix.

    It is part of the training step and runs on the accelerator; its random state is part of the
    training state, so that a resumed run continues the same random sequence.

    Args:
        recipe: which augmentation, and how strong.
        **kwargs: of ``keras.layers.Layer``.
    """

    def __init__(self, recipe: TrainSpec, **kwargs: Any) -> None:
        # bfloat16 cannot represent all pixel values of 0 to 255 after arithmetic.
        super().__init__(dtype="float32", **kwargs)
        self.mix_probability = recipe.mix_probability
        make = _LayerFactory(recipe.seed)
        self.seed_generator = keras.random.SeedGenerator(make.seed())
        self.image_layers = _image_layers(recipe, make)
        self.mixup = make(layers.MixUp, recipe.mixup) if recipe.mixup else None
        self.cutmix = make(layers.CutMix, _exactly(recipe.cutmix)) if recipe.cutmix else None

    def call(self, images: Any, targets: Any) -> tuple[Any, Any]:
        """Returns augmented images and their targets.

        Args:
            images: float32 ``(batch, height, width, channels)``, 0–255.
            targets: float32 ``(batch, classes)``, each row a distribution.
        """
        for layer in self.image_layers:
            images = layer(images, training=True)
        mixers = [mixer for mixer in (self.mixup, self.cutmix) if mixer is not None]
        if not mixers:
            return images, targets
        uniform = keras.random.uniform((2,), seed=self.seed_generator)
        mixed = mixers[-1]({"images": images, "labels": targets}, training=True)
        if len(mixers) == 2:
            other = mixers[0]({"images": images, "labels": targets}, training=True)
            mixed = {key: ops.where(uniform[1] < 0.5, other[key], mixed[key]) for key in mixed}
        mix = uniform[0] < self.mix_probability
        return (
            ops.where(mix, mixed["images"], images),
            ops.where(mix, mixed["labels"], targets),
        )


class RandAugment(layers.Layer):
    """RandAugment (arXiv:1909.13719): random operations, one after the other, on a whole batch.

    Args:
        count: operations per batch.
        magnitude: strength of the operations, above 0 to 10.
        make: makes the operations.
    """

    def __init__(self, count: int, magnitude: float, make: _LayerFactory) -> None:
        super().__init__(dtype="float32")
        self.count = count
        self.seed_generator = keras.random.SeedGenerator(make.seed())
        self.operations = _operations(magnitude / 10, make)

    def build(self, shape: Any) -> None:
        """Builds the operations, which have no weights."""
        for operation in self.operations:
            operation.build(shape)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Returns augmented images; float32 ``(batch, height, width, channels)``, 0–255."""
        choices = keras.random.randint(
            (self.count,), 0, len(self.operations), seed=self.seed_generator
        )
        for index in range(self.count):
            # Random numbers are drawn outside of the branches: a branch cannot update a seed.
            branches = [
                partial(
                    operation.transform_images,
                    transformation=operation.get_random_transformation(images, training=True),
                    training=True,
                )
                for operation in self.operations
            ]
            images = ops.switch(choices[index], branches, images)
        return images


def _operations(strength: float, make: _LayerFactory) -> list[Any]:
    """Returns the operations of RandAugment; ``strength`` is the magnitude as a fraction of 10."""
    shear, translation = strength * _SHEAR, strength * _TRANSLATION
    bits = round(8 - strength * (8 - _POSTERIZE_BITS))
    return [
        make(layers.RandomShear, shear, shear),
        make(layers.RandomTranslation, translation, translation, "constant"),
        make(layers.RandomRotation, strength * _ROTATION_DEGREES / 360),
        make(layers.RandomBrightness, strength * _BRIGHTNESS, _PIXELS),
        make(layers.RandomColorDegeneration, (0.0, strength), _PIXELS),
        make(layers.RandomContrast, (0.0, strength), _PIXELS),
        make(layers.RandomSharpness, (0.0, strength), _PIXELS),
        make(layers.RandomPosterization, _exactly(bits), _PIXELS),
        # Without an addition, which Keras would make before it inverts.
        make(layers.Solarization, 0.0, strength, _PIXELS),
        layers.AutoContrast(_PIXELS, dtype="float32"),
        layers.Equalization(_PIXELS, dtype="float32"),
    ]


def _exactly(value: float) -> tuple[float, float]:
    """Returns a range of one value: Keras takes a number as the range from 0 to it."""
    return (value, value)


def _image_layers(recipe: TrainSpec, make: _LayerFactory) -> list[Any]:
    """Returns the layers that augment images and leave targets as they are, in their order."""
    augmentation: list[Any] = []
    if recipe.crop:
        shift = (recipe.crop, recipe.crop)
        augmentation.append(make(layers.RandomTranslation, *shift, "constant", "nearest"))
    if recipe.flip:
        augmentation.append(make(layers.RandomFlip, "horizontal"))
    if recipe.rand_augment:
        augmentation.append(RandAugment(recipe.rand_augment, recipe.magnitude, make))
    if recipe.augment == "jpeg":
        augmentation.append(make(JpegCompression, _JPEG_PROBABILITY, _JPEG_QUALITY))
    if recipe.erasing:
        area = {"scale": (0.02, 0.33), "value_range": _PIXELS}
        augmentation.append(make(layers.RandomErasing, _exactly(recipe.erasing), **area))
    return augmentation
