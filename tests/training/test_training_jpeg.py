"""JPEG compression as augmentation, compared with Pillow's."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_sample_images
from tiny_run import TINY, gray_images, train_tiny

from cct_export.data.recompressed import recompressed
from cct_export.errors import InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.training.augmentation import Augmentation
from cct_export.training.jpeg import compressed


def _crops(channels, height=32, width=32, count=64):
    """Returns crops of scikit-learn's photographs, uint8."""
    random = np.random.default_rng(0)
    photos = load_sample_images().images
    crops = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        photo = photos[index % len(photos)]
        y, x = (random.integers(0, size) for size in np.subtract(photo.shape[:2], (height, width)))
        crops[index] = photo[y : y + height, x : x + width]
    return crops if channels == 3 else crops.mean(axis=-1, keepdims=True).astype(np.uint8)


def _compressed(crops, quality):
    qualities = np.full(len(crops), quality, np.float32)
    return np.asarray(compressed(crops.astype(np.float32), qualities))


def _difference(one, other):
    return np.abs(one.astype(float) - other).mean()


# Only rounding differs, which seldom takes a frequency to the next step. Over these crops the mean
# difference was 0.43 to 0.60 levels for colour and 0.09 to 0.21 for grey, while compression itself
# changes 0.8 to 5.2.
@pytest.mark.parametrize(("channels", "allowed"), [(3, 0.7), (1, 0.3)])
@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("size", [(32, 32), (33, 23)])
def test_it_is_what_pillow_decodes(channels, allowed, quality, size):
    crops = _crops(channels, *size)
    expected = np.stack([recompressed(crop, quality=quality) for crop in crops])
    mine = _compressed(crops, quality)
    assert _difference(mine, expected) < allowed
    assert _difference(crops, expected) > 2 * allowed
    assert np.array_equal(mine, np.round(mine))
    assert mine.min() >= 0
    assert mine.max() <= 255


def test_every_image_has_the_quality_given_for_it():
    crops = _crops(3, count=3)
    mixed = np.asarray(compressed(crops.astype(np.float32), np.array([50, 75, 95], np.float32)))
    for index, quality in enumerate((50, 75, 95)):
        assert np.array_equal(mixed[index], _compressed(crops[index : index + 1], quality)[0])


def test_half_of_the_images_are_compressed_by_different_qualities():
    crops = _crops(3, count=400)
    images, targets = crops.astype(np.float32), np.eye(4, dtype=np.float32)[np.arange(400) % 4]
    layer = Augmentation(TrainSpec("x", flip=False, augment="jpeg", seed=3))
    after, same = (np.asarray(output) for output in layer(images, targets))
    changed = np.flatnonzero((after != images).any(axis=(1, 2, 3)))
    assert len(changed) == pytest.approx(200, abs=3 * 10)  # three standard deviations
    assert np.array_equal(same, targets)
    qualities, found = np.arange(50, 96), []
    for index in changed[:60]:
        candidates = _compressed_by(crops[index], qualities)
        (matches,) = np.nonzero((candidates == after[index]).all(axis=(1, 2, 3)))
        found.append(qualities[matches[0]])
    assert np.mean(found) == pytest.approx(72.5, abs=3 * 13.3 / np.sqrt(60))


def _compressed_by(crop, qualities):
    copies = np.repeat(crop[np.newaxis].astype(np.float32), len(qualities), axis=0)
    return np.asarray(compressed(copies, qualities.astype(np.float32)))


def test_images_are_compressed_after_they_are_moved_and_before_parts_are_erased():
    recipe = TrainSpec("x", crop=0.1, rand_augment=1, augment="jpeg", erasing=0.1)
    assert [type(layer).__name__ for layer in Augmentation(recipe).image_layers] == [
        "RandomTranslation", "RandomFlip", "RandAugment", "JpegCompression", "RandomErasing",
    ]  # fmt: skip


def test_a_resumed_run_compresses_as_an_uninterrupted_one(tmp_path, resumed, same_state):
    data = gray_images(tmp_path / "d.npz")
    same_state(*resumed(tmp_path, data, augment="jpeg"))


def test_it_compiles_with_xla_on_tensorflow():
    import tensorflow as tf

    crops = _crops(3, 33, 23).astype(np.float32)
    qualities = np.linspace(50, 95, len(crops)).astype(np.float32)
    compiled = tf.function(compressed, jit_compile=True)(crops, qualities)
    assert _difference(np.asarray(compiled), np.asarray(compressed(crops, qualities))) < 0.05


def test_it_compiles_on_jax(tmp_path):
    script = (
        "import sys, jax, numpy as np\n"
        "from cct_export.training.jpeg import compressed\n"
        "crops, qualities = np.load(sys.argv[1]).values()\n"
        "np.save(sys.argv[2], jax.jit(compressed)(crops, qualities))\n"
    )
    pytest.importorskip("jax", reason="jax is not installed")
    crops = _crops(3, 33, 23).astype(np.float32)
    qualities = np.linspace(50, 95, len(crops)).astype(np.float32)
    np.savez(tmp_path / "in.npz", crops=crops, qualities=qualities)
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "in.npz", tmp_path / "out.npy"],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=True,
    )
    expected = np.asarray(compressed(crops, qualities))
    assert _difference(np.load(tmp_path / "out.npy"), expected) < 0.05


def test_images_that_no_jpeg_has_are_refused_before_data_is_read(tmp_path):
    with pytest.raises(InvalidRequest, match=r"augment jpeg: .* 1 or 3 channels, not 4"):
        train_tiny(tmp_path / "run", "nowhere", model=replace(TINY, channels=4), augment="jpeg")
    assert not (tmp_path / "run").exists()
