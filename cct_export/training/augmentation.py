"""Random changes of the training images, by the layers that Keras has for them."""

from typing import Any

import keras
from keras import layers, ops

from cct_export.specs import TrainSpec

_PIXELS = (0, 255)
# Of RandAugment, by timm's table for a strength of 10: Keras has one number for all changes, with
# which images would turn by half a circle where they move by half their size.
_DEGREES = 30.0
_SHEAR = 0.3
_SHIFT = 0.45
_FEWEST_BITS = 4


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
        self.seed_generator = keras.random.SeedGenerator(recipe.seed)
        self.changes = _changes(recipe)
        seed = recipe.seed
        self.mixup = layers.MixUp(recipe.mixup, seed=seed) if recipe.mixup else None
        self.cutmix = layers.CutMix(_always(recipe.cutmix), seed=seed) if recipe.cutmix else None

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


def _always(value: float) -> tuple[float, float]:
    """Returns a range of one value: where Keras is given a number, it draws from 0 to that."""
    return (value, value)


def _changes(recipe: TrainSpec) -> list[Any]:
    """Returns the layers that change images alone, in their order."""
    seed, found = recipe.seed, []
    if recipe.crop:
        found.append(
            layers.RandomTranslation(
                recipe.crop, recipe.crop, "constant", "nearest", seed=seed, dtype="float32"
            )
        )
    if recipe.flip:
        found.append(layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
    if recipe.rand_augment:
        found.append(_rand_augment(recipe))
    if recipe.erasing:
        found.append(
            layers.RandomErasing(
                _always(recipe.erasing),
                scale=(0.02, 0.33),
                seed=seed,
                value_range=_PIXELS,
                dtype="float32",
            )
        )
    return found


def _rand_augment(recipe: TrainSpec) -> Any:
    """Returns RandAugment whose changes of shape and of bits are as strong as published."""
    share, seed = recipe.magnitude / 10, recipe.seed
    augment = layers.RandAugment(_PIXELS, recipe.rand_augment, share, seed=seed, dtype="float32")
    exact: dict[str, Any] = {"seed": seed, "dtype": "float32"}
    augment.random_rotation = layers.RandomRotation(share * _DEGREES / 360, **exact)
    augment.random_shear = layers.RandomShear(share * _SHEAR, share * _SHEAR, **exact)
    augment.random_translation = layers.RandomTranslation(
        share * _SHIFT, share * _SHIFT, "constant", **exact
    )
    bits = round(8 - share * (8 - _FEWEST_BITS))
    augment.random_posterization = layers.RandomPosterization(bits, _PIXELS, **exact)
    return augment
