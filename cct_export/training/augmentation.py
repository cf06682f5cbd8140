"""Random changes of the training images, by the layers that Keras has for them."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cct_export.specs import TrainSpec

_PIXELS = (0, 255)
# Of RandAugment, by timm's table for a strength of 10: Keras has one number for all changes, with
# which images would turn by half a circle where they move by half their size.
_DEGREES = 30.0
_SHEAR = 0.3
_SHIFT = 0.45
_FEWEST_BITS = 4
# Keras adds to pixels where the published change multiplies them by 0.1 to 1.9: as much of a middle
# gray.
_BRIGHTNESS = 0.45


class Augmentation(keras.layers.Layer):
    """What a recipe does to a batch of images and to its targets.

    It runs with the training step, on the accelerator; the random state is part of the training
    state, so that a resumed run draws what an unbroken one would.

    Args:
        recipe: which changes, and how strong.
        **kwargs: passed to ``keras.layers.Layer``.
    """

    def __init__(self, recipe: TrainSpec, **kwargs: Any) -> None:
        # Pixels are 0 to 255: bfloat16 has 8 bits for them.
        super().__init__(dtype="float32", **kwargs)
        self.mix_probability = recipe.mix_probability
        drawing = _Drawing(recipe.seed)
        self.seed_generator = keras.random.SeedGenerator(drawing.seed())
        self.changes = _changes(recipe, drawing)
        self.mixup = layers.MixUp(recipe.mixup, **drawing()) if recipe.mixup else None
        self.cutmix = layers.CutMix(_always(recipe.cutmix), **drawing()) if recipe.cutmix else None
        if keras.backend.backend() == "jax":
            _let_compile(self.changes)

    def call(self, images: Any, targets: Any) -> tuple[Any, Any]:
        """Returns images and targets, changed at random.

        Args:
            images: float32 ``(batch, height, width, channels)``, 0–255.
            targets: float32 ``(batch, classes)``, each row a distribution.
        """
        for change in self.changes:
            images = change(images, training=True)
        mixers = [mixer for mixer in (self.mixup, self.cutmix) if mixer is not None]
        if not mixers:
            return images, targets
        drawn = keras.random.uniform((2,), seed=self.seed_generator)
        mixed = mixers[-1]({"images": images, "labels": targets}, training=True)
        if len(mixers) == 2:
            other = mixers[0]({"images": images, "labels": targets}, training=True)
            mixed = {key: ops.where(drawn[1] < 0.5, other[key], mixed[key]) for key in mixed}
        mixing = drawn[0] < self.mix_probability
        return (
            ops.where(mixing, mixed["images"], images),
            ops.where(mixing, mixed["labels"], targets),
        )


class _Drawing:
    """What each layer that draws is given: float32, and a seed of its own.

    Layers of one seed draw the same numbers: images would be mirrored where they are shifted left.

    Args:
        seed: of the recipe.
    """

    def __init__(self, seed: int) -> None:
        self.sequence = np.random.SeedSequence(seed)

    def seed(self) -> int:
        """Returns the next seed, 0 to 2^32 - 1."""
        return int(self.sequence.spawn(1)[0].generate_state(1)[0])

    def __call__(self) -> dict[str, Any]:
        """Returns the arguments of the next layer."""
        return {"seed": self.seed(), "dtype": "float32"}


def _always(value: float) -> tuple[float, float]:
    """Returns a range of one value: where Keras is given a number, it draws from 0 to that."""
    return (value, value)


def _let_compile(changes: list[Any]) -> None:
    """Lets JAX compile changes that Keras declares impossible to compile, and with them the step.

    Keras does so for all backends, since TensorFlow's XLA has no such operator.
    """
    for change in changes:
        for layer in change._flatten_layers():
            layer.supports_jit = True


def _changes(recipe: TrainSpec, drawing: _Drawing) -> list[Any]:
    """Returns the layers that change images alone, in their order."""
    found: list[Any] = []
    if recipe.crop:
        shift = (recipe.crop, recipe.crop)
        found.append(layers.RandomTranslation(*shift, "constant", "nearest", **drawing()))
    if recipe.flip:
        found.append(layers.RandomFlip("horizontal", **drawing()))
    if recipe.rand_augment:
        found.append(_rand_augment(recipe, drawing))
    if recipe.erasing:
        often = _always(recipe.erasing)
        found.append(
            layers.RandomErasing(often, scale=(0.02, 0.33), value_range=_PIXELS, **drawing())
        )
    return found


def _rand_augment(recipe: TrainSpec, drawing: _Drawing) -> Any:
    """Returns RandAugment whose changes of shape and of bits are as strong as published."""
    share = recipe.magnitude / 10
    augment = layers.RandAugment(_PIXELS, recipe.rand_augment, share, **drawing())
    augment.random_rotation = layers.RandomRotation(share * _DEGREES / 360, **drawing())
    augment.random_shear = layers.RandomShear(share * _SHEAR, share * _SHEAR, **drawing())
    augment.random_translation = layers.RandomTranslation(
        share * _SHIFT, share * _SHIFT, "constant", **drawing()
    )
    augment.random_brightness = layers.RandomBrightness(share * _BRIGHTNESS, _PIXELS, **drawing())
    # Keras would add to the pixels first, up to white.
    augment.solarization = layers.Solarization(0.0, share, _PIXELS, **drawing())
    bits = round(8 - share * (8 - _FEWEST_BITS))
    augment.random_posterization = layers.RandomPosterization((bits, bits), _PIXELS, **drawing())
    return augment
