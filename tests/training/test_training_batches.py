"""Batches: their order, reading from disk, and shards for several workers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.data.dataset import ArraySplit
from cct_export.errors import InvalidData
from cct_export.training import batches as module
from cct_export.training.batches import Batches, ShardedBatches, Subset, in_memory


def _batches(total=23, batch=5, seed=0, epoch=0, classes=3):
    pixels = np.arange(total, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    split = ArraySplit(pixels, np.arange(total) % classes)
    return Batches(Subset(split, np.arange(total), classes), batch, seed, epoch)


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


def test_the_order_depends_on_seed_and_epoch():
    orders = {
        (seed, epoch): _order(_batches(seed=seed, epoch=epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert orders[0, 0] == _order(_batches(seed=0, epoch=0))
    assert len({tuple(order) for order in orders.values()}) == 4


def test_batches_that_start_at_a_later_epoch_have_the_order_of_that_epoch():
    batches = _batches()
    for epoch in range(4):
        assert _order(_batches(epoch=epoch)) == _order(batches)
        batches.on_epoch_end()


def test_the_batch_size_does_not_change_the_order():
    assert _order(_batches(batch=5)) == _order(_batches(batch=8))


def test_without_a_seed_images_are_not_shuffled():
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
    """A split that records how many images are read at once."""

    def __init__(self, total):
        self.labels = np.arange(total) % 3
        self.largest_read = 0

    def images(self, indices):
        self.largest_read = max(self.largest_read, len(indices))
        return np.zeros((len(indices), 2, 2, 1), np.uint8) + np.uint8(indices)[:, None, None, None]


def test_images_that_do_not_fit_in_memory_are_read_a_batch_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_MEMORY_BYTES", 23 * 4 - 1)
    files = _Files(23)
    assert in_memory(files, (2, 2, 1)) is files
    batches = Batches(Subset(files, np.arange(3, 23), 3), 5, seed=0)
    assert sorted(_order(batches)) == list(range(3, 23))
    assert files.largest_read == 5


def test_images_that_fit_in_memory_are_read_once(monkeypatch):
    monkeypatch.setattr(module, "_MEMORY_BYTES", 23 * 4)
    files = _Files(23)
    split = in_memory(files, (2, 2, 1))
    assert isinstance(split, ArraySplit)
    assert files.largest_read == 23
    assert np.array_equal(split.pixels[:, 0, 0, 0], np.arange(23))


class _Corrupt(_Files):
    """A split of which one image cannot be read."""

    def images(self, indices):
        if 22 in indices:
            raise InvalidData("22.png is no image")
        return super().images(indices)


def test_an_unreadable_image_is_an_error_in_its_own_step_only():
    batches = Batches(Subset(_Corrupt(23), np.arange(23), 3), 5, seed=None)
    for step in range(4):
        assert len(batches[step][0]["image"]) == 5
        assert batches.error is None
    with pytest.raises(InvalidData, match=r"22\.png"):
        batches[4]
    assert "22.png" in str(batches.error)


def test_closed_batches_prefetch_nothing():
    batches = Batches(Subset(_Files(23), np.arange(23), 3), 5, seed=None)
    assert len(batches[0][0]["image"]) == 5
    batches.close()
    with pytest.raises(RuntimeError):
        [batches[step] for step in range(5)]


def _numbered(images, classes):
    """A subset whose images are their own index."""
    pixels = np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    split = ArraySplit(pixels, np.arange(images) % classes)
    return Subset(split, np.arange(images), classes)


@pytest.mark.parametrize(("images", "shards"), [(24, 2), (23, 2), (25, 4), (12, 3)])
def test_the_shards_of_a_batch_are_the_batch(images, shards):
    arguments = (_numbered(images, 5), 12, 7)
    batches = Batches(*arguments)
    workers = [ShardedBatches(shards, range(i, i + 1), *arguments) for i in range(shards)]
    for step in range(len(batches)):
        (batch,) = batches[step]
        parts = [worker[step][0] for worker in workers]
        assert len({len(part["image"]) for part in parts}) == 1
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        counted = joined["weight"] > 0
        assert np.array_equal(joined["image"][counted], batch["image"])
        assert np.array_equal(joined["target"][counted], batch["target"])
        assert joined["weight"].sum() == pytest.approx(len(counted))
        assert np.isin(joined["image"], batch["image"]).all()


def test_endless_shards_have_the_order_in_which_fit_reads_batches():
    arguments = (_numbered(10, 2), 4, 7)
    shards = ShardedBatches(1, range(1), *arguments).endless_shards()
    images = [next(shards)["image"] for _ in range(6)]
    batches = Batches(*arguments)
    for epoch in range(2):
        batches.on_epoch_end()
        for step in range(3):
            (batch,) = batches[step]
            assert np.array_equal(images[3 * epoch + step], batch["image"])
