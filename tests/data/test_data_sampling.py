"""Sampling of the images for calibration, parity and timing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.data import sampling
from cct_export.data.dataset import ArraySplit, Dataset
from cct_export.errors import InvalidData

SHAPE = (4, 4, 3)


def _split(values):
    """Returns a split of single-colour images, each of another colour."""
    pixels = np.zeros((len(values), *SHAPE), np.uint8)
    pixels += np.asarray(values, np.uint8)[:, None, None, None]
    return ArraySplit(pixels, np.zeros(len(values), np.int64))


DATASET = Dataset("these", ("a",), _split(range(100)), _split(range(100, 160)))


def _colours(images):
    return images[:, 0, 0, 0].tolist()


def test_calibration_samples_training_images_only():
    samples = sampling.calibration(DATASET, SHAPE, 50)
    colours = _colours(samples.images)
    assert len(set(colours)) == 50
    assert max(colours) < 100
    assert samples.origin == "50 training images of these"


def test_parity_samples_test_images_only():
    samples = sampling.parity(DATASET, SHAPE, 50)
    colours = _colours(samples.images)
    assert len(set(colours)) == 50
    assert min(colours) >= 100
    assert samples.origin == "50 test images of these"


def test_a_count_above_the_number_of_images_gives_all_of_them():
    assert _colours(sampling.parity(DATASET, SHAPE, 1000).images) == list(range(100, 160))
    assert sampling.calibration(DATASET, SHAPE, 1000).origin == "100 training images of these"


def test_samples_are_the_same_every_time():
    for sample in (sampling.calibration, sampling.parity):
        first, second = (sample(DATASET, SHAPE, 10).images for _ in range(2))
        assert np.array_equal(first, second)


@given(total=st.integers(1, 60), count=st.integers(1, 80), seed=st.integers(0, 5))
def test_sampled_indices_are_distinct_ordered_and_in_range(total, count, seed):
    indices = sampling.sample_indices(_split(range(total)), count, seed).tolist()
    assert indices == sorted(set(indices))
    assert len(indices) == min(total, count)
    assert indices[0] >= 0
    assert indices[-1] < total


def test_another_seed_samples_other_images():
    split = _split(range(100))
    first, second = (sampling.sample_indices(split, 10, seed).tolist() for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 12, 1)])
def test_photo_crops_are_the_same_every_time_and_differ_from_each_other(shape):
    first, second = (sampling.photo_crops(shape, 12, seed=7) for _ in range(2))
    assert first.shape == (12, *shape)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert len({crop.tobytes() for crop in first}) == 12
    assert min(np.ptp(crop) for crop in first) > 0


def test_photo_crops_for_calibration_and_parity_have_none_in_common():
    calibration = sampling.calibration(None, (16, 16, 3), 40)
    parity = sampling.parity(None, (16, 16, 3), 40)
    assert calibration.origin == parity.origin == "40 photo crops"
    common = {crop.tobytes() for crop in calibration.images}
    assert not common & {crop.tobytes() for crop in parity.images}


def test_calibration_without_data_uses_photo_crops_and_logs_it(caplog):
    with caplog.at_level("INFO", logger="cct_export"):
        sampling.calibration(None, (8, 8, 3), 8)
    assert any("photo crops" in line and "--data" in line for line in caplog.messages)


def test_calibration_images_of_one_colour_are_refused():
    black = Dataset("night", ("a",), _split([0] * 20), _split([1] * 20))
    with pytest.raises(InvalidData, match=r"20 training images of night.*one colour"):
        sampling.calibration(black, SHAPE, 20)


@pytest.mark.parametrize(("count", "warned"), [(7, True), (8, False)])
def test_fewer_than_eight_calibration_images_are_warned_of(caplog, count, warned):
    with caplog.at_level("WARNING", logger="cct_export"):
        sampling.calibration(DATASET, SHAPE, count)
    assert any(f"only {count} calibration" in line for line in caplog.messages) == warned


@pytest.mark.parametrize("sample", [sampling.calibration, sampling.parity])
@pytest.mark.parametrize("count", [0, -3])
def test_no_images_at_all_are_refused(sample, count):
    with pytest.raises(InvalidData, match=f"{count} .*at least 1"):
        sample(DATASET, SHAPE, count)


def test_images_for_timing_are_random_and_always_the_same():
    images = sampling.timing_images(SHAPE, 5)
    assert images.shape == (5, *SHAPE)
    assert images.dtype == np.uint8
    assert np.array_equal(images, sampling.timing_images(SHAPE, 5))
    assert np.ptp(images) > 200
