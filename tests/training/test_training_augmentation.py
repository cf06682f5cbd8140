"""What recipes do to images and targets, and what they leave."""

import keras
import numpy as np
import pytest

from cct_export.specs import TrainSpec
from cct_export.training.augmentation import Augmentation

CLASSES = 5


def _batch(count=12, size=16):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3)).astype(np.float32)
    return images, np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]


def _changed(images, targets, **recipe):
    keras.utils.set_random_seed(1)
    layer = Augmentation(TrainSpec("x", **{"flip": False} | recipe))
    changed = layer(images, targets)
    return tuple(np.asarray(one) for one in changed)


def test_a_recipe_without_changes_leaves_every_bit():
    images, targets = _batch()
    for before, after in zip((images, targets), _changed(images, targets), strict=True):
        assert np.array_equal(before, after)


def test_flipping_mirrors_some_images_and_leaves_the_others():
    images, targets = _batch()
    after, _ = _changed(images, targets, flip=True)
    mirrored = [np.array_equal(one, was[:, ::-1]) for one, was in zip(after, images, strict=True)]
    kept = [np.array_equal(one, was) for one, was in zip(after, images, strict=True)]
    assert all(np.logical_xor(mirrored, kept))
    assert 0 < sum(mirrored) < len(images)


def test_cropping_moves_an_image_by_whole_pixels_and_fills_with_black():
    images, targets = _batch()
    after, _ = _changed(images, targets, crop=0.25)
    moved = 0
    for one, was in zip(after, images, strict=True):
        framed = np.pad(was, ((4, 4), (4, 4), (0, 0)))
        shifts = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if np.array_equal(one, framed[y : y + 16, x : x + 16])
        ]
        assert len(shifts) == 1
        moved += shifts[0] != (4, 4)
    assert moved > len(images) / 2


def test_erasing_changes_a_rectangle_of_some_images():
    images, targets = _batch(count=1200)
    after, _ = _changed(images, targets, erasing=0.25)
    changed = [(one != was).any(axis=-1) for one, was in zip(after, images, strict=True)]
    touched = [mask for mask in changed if mask.any()]
    assert len(touched) == pytest.approx(300, abs=3 * 15)  # three deviations
    for mask in touched:
        rows, columns = np.where(mask)
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.mean() > 0.95
        assert mask.mean() < 0.5
    assert after.min() >= 0
    assert after.max() <= 255


def test_mixup_mixes_images_and_targets_by_the_same_share():
    images, targets = _batch()
    after, mixed = _changed(images, targets, mixup=0.8)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-5)
    for one, target, was, label in zip(after, mixed, images, targets, strict=True):
        share = float(target[label.argmax()])
        partners = [
            other
            for other, its in zip(images, targets, strict=True)
            if np.allclose(target, share * label + (1 - share) * its, atol=1e-4)
            and np.allclose(one, share * was + (1 - share) * other, atol=0.5)
        ]
        assert partners or np.allclose(target, label, atol=1e-5)


def test_cutmix_mixes_targets_by_the_area_that_it_pastes():
    images, targets = _batch(size=32)
    after, mixed = _changed(images, targets, cutmix=1.0)
    pasted = (after != images).any(axis=-1).mean(axis=(1, 2))
    kept = (mixed * targets).sum(axis=1)
    same = [np.isclose(row.max(), 1) for row in mixed]
    assert not all(same)
    for share, target, alike in zip(pasted, kept, same, strict=True):
        if not alike:
            assert target == pytest.approx(1 - share, abs=0.08)


def test_of_mixup_and_cutmix_a_batch_gets_one_and_all_get_their_turn():
    images, targets = _batch(size=32)
    keras.utils.set_random_seed(1)
    layer = Augmentation(TrainSpec("x", flip=False, mixup=1.0, cutmix=1.0, mix_probability=0.7))
    kinds = set()
    for _ in range(30):
        after, mixed = (np.asarray(one) for one in layer(images, targets))
        if np.array_equal(after, images):
            assert np.array_equal(mixed, targets)
            kinds.add("none")
        else:
            whole = np.isin(after, np.arange(256)).all()
            kinds.add("cutmix" if whole else "mixup")
    assert kinds == {"none", "cutmix", "mixup"}


def test_rand_augment_changes_images_and_keeps_them_images():
    images, targets = _batch()
    keras.utils.set_random_seed(1)
    layer = Augmentation(TrainSpec("x", flip=False, rand_augment=2, magnitude=9.0))
    changed = 0
    for _ in range(6):
        after, same = (np.asarray(one) for one in layer(images, targets))
        assert after.shape == images.shape
        assert np.isfinite(after).all()
        assert after.min() >= -1e-3
        assert after.max() <= 255.001
        assert np.array_equal(same, targets)
        changed += not np.array_equal(after, images)
    assert changed >= 4


def test_the_seed_alone_decides_what_is_drawn():
    images, targets = _batch()
    knobs = {"flip": True, "crop": 0.2, "mixup": 0.5, "cutmix": 0.5, "erasing": 0.3}
    first, again, other = (_changed(images, targets, seed=seed, **knobs)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_change_says_nothing_of_another():
    images, targets = _batch(count=600, size=9)
    images[:] = np.arange(1, 10)[:, None] + 10 * np.arange(9)[:, None, None]  # all pixels differ
    after, _ = _changed(images, targets, flip=True, crop=0.25)
    pixels = after[..., 0]
    mirrored = pixels[:, 4, 5] < pixels[:, 4, 4]
    upright = np.where(mirrored[:, None, None], pixels[:, :, ::-1], pixels)
    left, down = upright[:, 4, 0] == 0, upright[:, 0, 4] == 0
    draws = np.corrcoef(np.stack([mirrored, left, down]))
    # Of 600 independent draws, a correlation has a deviation of 0.04.
    assert np.abs(draws - np.eye(3)).max() < 0.2


@pytest.mark.parametrize(
    ("knob", "amount"),
    [("mixup", 1), ("cutmix", 1), ("erasing", 1), ("crop", 0.3), ("rand_augment", 2)],
)
def test_pixels_are_changed_in_float32_whatever_the_model_computes_in(knob, amount):
    images, targets = _batch()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        exact, mixed = _changed(images, targets, **{knob: amount})
    finally:
        keras.mixed_precision.set_global_policy("float32")
    rough, targets_too = _changed(images, targets, **{knob: amount})
    assert np.array_equal(exact, rough)
    assert np.array_equal(mixed, targets_too)


def test_rand_augment_changes_brightness_less_than_to_black_or_white():
    gray = np.full((200, 8, 8, 3), 128, np.float32)
    layer = Augmentation(TrainSpec("x", flip=False, rand_augment=1, magnitude=9.0))
    augment = layer.changes[0]
    changed = np.asarray(augment.random_brightness(gray, training=True))
    assert 20 < np.abs(changed - gray).max() <= 0.9 * 0.45 * 255 + 1e-3
    solarized = np.asarray(augment.solarization(gray, training=True))
    assert set(np.unique(solarized)) <= {127.0, 128.0}
    turned = augment.random_rotation.factor
    assert max(map(abs, np.ravel(turned))) == pytest.approx(0.9 * 30 / 360)
    assert max(map(abs, np.ravel(augment.random_translation.width_factor))) <= 0.9 * 0.45 + 1e-9
    assert augment.random_posterization.factor == (4, 4)
