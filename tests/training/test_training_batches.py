"""The order of the images depends on seed and epoch alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.data.dataset import ArraySplit
from cct_export.errors import InvalidData
from cct_export.training import batches as room
from cct_export.training.batches import Batches, resident


def _batches(total=23, batch=5, seed=0, epoch=0, classes=3):
    pixels = np.arange(total, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    split = ArraySplit(pixels, np.arange(total) % classes)
    return Batches(split, np.arange(total), classes, batch, seed, epoch)


def _order(batches):
    return [
        int(image[0, 0, 0]) for step in range(len(batches)) for image in batches[step][0]["image"]
    ]


@settings(deadline=None)
@given(total=st.integers(1, 60), batch=st.integers(1, 70), seed=st.none() | st.integers(0, 9))
def test_an_epoch_has_every_image_once(total, batch, seed):
    batches = _batches(total, batch, seed)
    assert sorted(_order(batches)) == list(range(total))
    sizes = [len(batches[step][0]["image"]) for step in range(len(batches))]
    assert all(size == batch for size in sizes[:-1])
    assert 0 < sizes[-1] <= batch


def test_the_order_is_that_of_seed_and_epoch():
    orders = {
        (seed, epoch): _order(_batches(seed=seed, epoch=epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert orders[0, 0] == _order(_batches(seed=0, epoch=0))
    assert len({tuple(order) for order in orders.values()}) == 4


def test_a_run_begun_in_a_later_epoch_has_the_order_of_that_epoch():
    through = _batches()
    for epoch in range(4):
        assert _order(_batches(epoch=epoch)) == _order(through)
        through.on_epoch_end()


def test_the_size_of_a_batch_does_not_change_the_order():
    assert _order(_batches(batch=5)) == _order(_batches(batch=8))


def test_without_a_seed_the_images_stay_in_order():
    batches = _batches(seed=None)
    batches.on_epoch_end()
    assert _order(batches) == list(range(23))


def test_the_order_does_not_depend_on_the_global_random_state():
    np.random.seed(1)
    first = _order(_batches())
    np.random.seed(2)
    assert _order(_batches()) == first


def test_images_are_raw_pixels_and_targets_are_one_hot():
    (batch,) = _batches(seed=3)[1]
    images, targets = batch["image"], batch["target"]
    assert (images.dtype, targets.dtype) == (np.uint8, np.float32)
    assert targets.shape == (5, 3)
    numbers = images[:, 0, 0, 0].astype(int)
    assert np.array_equal(targets.argmax(axis=1), numbers % 3)
    assert np.array_equal(targets.sum(axis=1), np.ones(5))
    assert images.max() > 1


@pytest.mark.parametrize(("total", "batch", "steps"), [(10, 5, 2), (11, 5, 3), (1, 5, 1)])
def test_the_last_batch_may_be_smaller(total, batch, steps):
    assert len(_batches(total, batch)) == steps


class _Files:
    """A split that counts what is read at once."""

    def __init__(self, total):
        self.labels = np.arange(total) % 3
        self.most = 0

    def images(self, indices):
        self.most = max(self.most, len(indices))
        return np.zeros((len(indices), 2, 2, 1), np.uint8) + np.uint8(indices)[:, None, None, None]


def test_images_that_are_too_many_for_memory_are_read_a_batch_at_a_time(monkeypatch):
    monkeypatch.setattr(room, "_RESIDENT", 23 * 4 - 1)
    files = _Files(23)
    assert resident(files, (2, 2, 1)) is files
    batches = Batches(files, np.arange(3, 23), 3, 5, seed=0)
    assert sorted(_order(batches)) == list(range(3, 23))
    assert files.most == 5


def test_few_images_are_read_once(monkeypatch):
    monkeypatch.setattr(room, "_RESIDENT", 23 * 4)
    files = _Files(23)
    held = resident(files, (2, 2, 1))
    assert isinstance(held, ArraySplit)
    assert files.most == 23
    assert np.array_equal(held.pixels[:, 0, 0, 0], np.arange(23))


class _Broken(_Files):
    """A split of which one image cannot be read."""

    def images(self, indices):
        if 22 in indices:
            raise InvalidData("22.png is no image")
        return super().images(indices)


def test_what_is_only_read_ahead_is_no_failure_yet():
    batches = Batches(_Broken(23), np.arange(23), 3, 5, seed=None)
    for step in range(4):
        assert len(batches[step][0]["image"]) == 5
        assert batches.failure is None
    with pytest.raises(InvalidData, match=r"22\.png"):
        batches[4]
    assert "22.png" in str(batches.failure)


def test_nothing_is_read_by_threads_after_the_end():
    batches = Batches(_Files(23), np.arange(23), 3, 5, seed=None)
    assert len(batches[0][0]["image"]) == 5
    batches.close()
    with pytest.raises(RuntimeError):
        [batches[step] for step in range(5)]
