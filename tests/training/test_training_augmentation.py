"""Augmentation of images and targets."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from cct_export.specs import TrainSpec
from cct_export.training.augmentation import Augmentation

CLASSES = 5


def _batch(count=12, size=16):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3)).astype(np.float32)
    return images, np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]


def _augmented(images, targets, **recipe):
    keras.utils.set_random_seed(1)
    layer = Augmentation(TrainSpec("x", **{"flip": False} | recipe))
    return tuple(np.asarray(output) for output in layer(images, targets))


def test_without_augmentation_images_and_targets_are_not_augmented():
    images, targets = _batch()
    for before, after in zip((images, targets), _augmented(images, targets), strict=True):
        assert np.array_equal(before, after)


def test_some_images_are_flipped():
    images, targets = _batch()
    after, _ = _augmented(images, targets, flip=True)
    flipped = [np.array_equal(new, old[:, ::-1]) for new, old in zip(after, images, strict=True)]
    same = [np.array_equal(new, old) for new, old in zip(after, images, strict=True)]
    assert all(np.logical_xor(flipped, same))
    assert 0 < sum(flipped) < len(images)


def test_crop_shifts_images_by_whole_pixels_and_pads_with_black():
    images, targets = _batch()
    after, _ = _augmented(images, targets, crop=0.25)
    shifted = 0
    for new, old in zip(after, images, strict=True):
        padded = np.pad(old, ((4, 4), (4, 4), (0, 0)))
        shifts = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if np.array_equal(new, padded[y : y + 16, x : x + 16])
        ]
        assert len(shifts) == 1
        shifted += shifts[0] != (4, 4)
    assert shifted > len(images) / 2


def test_erasing_replaces_a_rectangle_of_some_images():
    images, targets = _batch(count=1200)
    after, _ = _augmented(images, targets, erasing=0.25)
    masks = [(new != old).any(axis=-1) for new, old in zip(after, images, strict=True)]
    erased = [mask for mask in masks if mask.any()]
    assert len(erased) == pytest.approx(300, abs=3 * 15)  # three standard deviations
    for mask in erased:
        rows, columns = np.where(mask)
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.mean() > 0.95
        assert mask.mean() < 0.5
    assert after.min() >= 0
    assert after.max() <= 255


def test_mixup_mixes_images_and_targets_by_the_same_fraction():
    images, targets = _batch()
    after, mixed = _augmented(images, targets, mixup=0.8)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-5)
    for new, target, old, label in zip(after, mixed, images, targets, strict=True):
        fraction = float(target[label.argmax()])
        partners = [
            other
            for other, other_label in zip(images, targets, strict=True)
            if np.allclose(target, fraction * label + (1 - fraction) * other_label, atol=1e-4)
            and np.allclose(new, fraction * old + (1 - fraction) * other, atol=0.5)
        ]
        assert partners or np.allclose(target, label, atol=1e-5)


def test_cutmix_mixes_targets_by_the_pasted_area():
    images, targets = _batch(size=32)
    after, mixed = _augmented(images, targets, cutmix=1.0)
    pasted = (after != images).any(axis=-1).mean(axis=(1, 2))
    kept = (mixed * targets).sum(axis=1)
    same = [np.isclose(row.max(), 1) for row in mixed]
    assert not all(same)
    for area, target, same_class in zip(pasted, kept, same, strict=True):
        if not same_class:
            assert target == pytest.approx(1 - area, abs=0.08)


def test_each_batch_gets_mixup_or_cutmix_or_neither():
    images, targets = _batch(size=32)
    keras.utils.set_random_seed(1)
    layer = Augmentation(TrainSpec("x", flip=False, mixup=1.0, cutmix=1.0, mix_probability=0.7))
    kinds = set()
    for _ in range(30):
        after, mixed = (np.asarray(output) for output in layer(images, targets))
        if np.array_equal(after, images):
            assert np.array_equal(mixed, targets)
            kinds.add("none")
        else:
            whole = np.isin(after, np.arange(256)).all()
            kinds.add("cutmix" if whole else "mixup")
    assert kinds == {"none", "cutmix", "mixup"}


def test_rand_augment_changes_pixels_within_their_range():
    images, targets = _batch()
    keras.utils.set_random_seed(1)
    layer = Augmentation(TrainSpec("x", flip=False, rand_augment=2, magnitude=9.0))
    changed = 0
    for _ in range(6):
        after, same = (np.asarray(output) for output in layer(images, targets))
        assert after.shape == images.shape
        assert np.isfinite(after).all()
        assert after.min() >= -1e-3
        assert after.max() <= 255.001
        assert np.array_equal(same, targets)
        changed += not np.array_equal(after, images)
    assert changed >= 4


def test_augmentation_depends_on_the_seed_only():
    images, targets = _batch()
    recipe = {"flip": True, "crop": 0.2, "mixup": 0.5, "cutmix": 0.5, "erasing": 0.3}
    first, again, other = (
        _augmented(images, targets, seed=seed, **recipe)[0] for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_flips_and_shifts_are_independent():
    images, targets = _batch(count=600, size=9)
    images[:] = np.arange(1, 10)[:, None] + 10 * np.arange(9)[:, None, None]  # all pixels differ
    after, _ = _augmented(images, targets, flip=True, crop=0.25)
    pixels = after[..., 0]
    flipped = pixels[:, 4, 5] < pixels[:, 4, 4]
    upright = np.where(flipped[:, None, None], pixels[:, :, ::-1], pixels)
    left, down = upright[:, 4, 0] == 0, upright[:, 0, 4] == 0
    correlation = np.corrcoef(np.stack([flipped, left, down]))
    # The correlation of 600 independent draws has a standard deviation of 0.04.
    assert np.abs(correlation - np.eye(3)).max() < 0.2


@pytest.mark.parametrize(
    ("hyperparameter", "value"),
    [
        ("mixup", 1),
        ("cutmix", 1),
        ("erasing", 1),
        ("crop", 0.3),
        ("rand_augment", 2),
        ("augment", "jpeg"),
    ],
)
def test_augmentation_computes_in_float32_with_mixed_precision(hyperparameter, value):
    images, targets = _batch()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        mixed = _augmented(images, targets, **{hyperparameter: value})
    finally:
        keras.mixed_precision.set_global_policy("float32")
    exact = _augmented(images, targets, **{hyperparameter: value})
    assert all(map(np.array_equal, mixed, exact))


def test_rand_augment_has_the_published_strengths():
    layer = Augmentation(TrainSpec("x", flip=False, rand_augment=1, magnitude=9.0))
    operations = {type(operation): operation for operation in layer.image_layers[0].operations}
    assert len(operations) == 11
    gray = np.full((200, 8, 8, 3), 128, np.float32)
    changed = np.asarray(operations[layers.RandomBrightness](gray, training=True))
    assert 20 < np.abs(changed - gray).max() <= 0.9 * 0.45 * 255 + 1e-3
    solarized = np.asarray(operations[layers.Solarization](gray, training=True))
    assert set(np.unique(solarized)) <= {127.0, 128.0}
    assert _largest(operations[layers.RandomRotation].factor) == pytest.approx(0.9 * 30 / 360)
    translation = operations[layers.RandomTranslation]
    assert _largest(translation.width_factor) == pytest.approx(0.9 * 0.45)
    assert _largest(operations[layers.RandomShear].x_factor) == pytest.approx(0.9 * 0.3)
    assert operations[layers.RandomPosterization].factor == (4, 4)


def _largest(factor):
    return max(map(abs, np.ravel(factor)))


def test_rand_augment_draws_new_operations_in_every_step_of_a_compiled_function():
    import tensorflow as tf

    images, targets = _batch()
    layer = Augmentation(TrainSpec("x", flip=False, rand_augment=2))
    augment = tf.function(layer)
    outputs = [np.asarray(augment(images, targets)[0]) for _ in range(8)]
    assert all(np.isfinite(output).all() for output in outputs)
    assert not any(np.array_equal(*pair) for pair in itertools.pairwise(outputs))
