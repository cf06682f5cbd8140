"""Batches whose order depends on seed and epoch alone, so that a resumed run repeats it."""

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import ArraySplit, ImageShape, Split
from cct_export.errors import CCTExportError

# Datasets of up to this many bytes are decoded once and kept in memory; larger ones are decoded
# again in every epoch.
_MEMORY_BYTES = 2 * 2**30
# Batches to prefetch (a framework may ask for several before it uses one), and threads for it.
_PREFETCH = 4
_THREADS = 2

Batch = dict[str, NDArray[Any]]


def in_memory(split: Split, shape: ImageShape) -> Split:
    """Returns the split with its images in memory, if they are small enough.

    Args:
        split: images and labels.
        shape: of an image.
    """
    count = len(split.labels)
    if isinstance(split, ArraySplit) or not fits_in_memory(count * math.prod(shape)):
        return split
    return ArraySplit(split.images(np.arange(count)), split.labels)


def fits_in_memory(byte_count: int) -> bool:
    """Returns whether images of so many bytes are small enough to be kept in memory."""
    return byte_count <= _MEMORY_BYTES


@dataclass(frozen=True)
class Subset:
    """Part of a split.

    Attributes:
        split: images and labels.
        rows: int64 ``(N,)``, indices into the split.
        classes: number of classes, for one-hot targets.
    """

    split: Split
    rows: NDArray[np.int64]
    classes: int

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Returns ``image``, uint8, and one-hot ``target``, float32, of ``rows`` of the split."""
        targets = np.eye(self.classes, dtype=np.float32)[self.split.labels[rows]]
        return {"image": self.split.images(rows), "target": targets}


class Batches(keras.utils.PyDataset):
    """Shuffled batches of one epoch after another.

    Images that are not in memory are prefetched by this class and not by Keras, which on JAX would
    start an epoch with batches that it prefetched in the order of the last one.

    Args:
        subset: the images.
        size: images per batch; the last batch may be smaller.
        seed: with the epoch it determines the order; None for no shuffling.
        epoch: the first epoch.

    Attributes:
        error: why an image could not be read; frameworks wrap it in an error of their own.
    """

    def __init__(self, subset: Subset, size: int, seed: int | None, epoch: int = 0) -> None:
        super().__init__()
        self.subset = subset
        self.size = size
        self.seed = seed
        self.epoch = epoch
        self.error: CCTExportError | None = None
        threads = None if isinstance(subset.split, ArraySplit) else ThreadPoolExecutor(_THREADS)
        self._threads = threads
        self._shuffle()

    def _shuffle(self) -> None:
        self._order = self.subset.rows
        if self.seed is not None:
            self._order = np.random.default_rng((self.seed, self.epoch)).permutation(self._order)
        self._prefetched: dict[int, Future[Batch]] = {}

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.subset.rows) / self.size)

    def __len__(self) -> int:
        """Items in an epoch: a step each."""
        return self.steps

    def steps_done(self, index: int) -> int:
        """Returns how many steps of an epoch are done after an item."""
        return index + 1

    def __getitem__(self, step: int) -> tuple[Batch]:
        """Returns ``image``, uint8, and one-hot ``target``, float32, of one step."""
        if self._threads is None:
            return (self._batch(step),)
        for ahead in range(step, min(step + 1 + _PREFETCH, len(self))):
            if ahead not in self._prefetched:
                self._prefetched[ahead] = self._threads.submit(self._batch, ahead)
        with self._recording_error():
            return (self._prefetched.pop(step).result(),)

    def _rows(self, step: int) -> NDArray[np.int64]:
        return self._order[step * self.size : (step + 1) * self.size]

    def _batch(self, step: int) -> Batch:
        return self.subset.batch(self._rows(step))

    @contextlib.contextmanager
    def _recording_error(self) -> Iterator[None]:
        try:
            yield
        except CCTExportError as error:
            self.error = error
            raise

    def close(self) -> None:
        """Stops prefetching."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def on_epoch_end(self) -> None:
        """Shuffles for the next epoch; Keras calls it."""
        self.epoch += 1
        self._shuffle()


class ShardedBatches(Batches):
    """The same batches, of which this process reads the shards of its own replicas.

    A batch is split into shards of equal size, one per replica. Where it does not divide evenly, as
    the last batch of an epoch, images of the batch are repeated with weight 0, so that loss and
    metrics are those of the batch.

    Args:
        shards: number of shards, which is that of replicas.
        own: shards of this process.
        subset: the images.
        size: images per batch.
        seed: see ``Batches``.
        epoch: the first epoch.
    """

    def __init__(
        self,
        shards: int,
        own: range,
        subset: Subset,
        size: int,
        seed: int | None,
        epoch: int = 0,
    ) -> None:
        self.shards = shards
        self.own = own
        super().__init__(subset, size, seed, epoch)

    def shard(self, step: int, index: int) -> Batch:
        """Returns one shard of a step: ``image``, ``target`` and ``weight``, float32.

        The weights of all shards of a step sum up to their images, repeated ones included.
        """
        rows = self._rows(step)
        size = math.ceil(len(rows) / self.shards)
        places = np.arange(index * size, (index + 1) * size)
        weight = np.where(places < len(rows), size * self.shards / len(rows), 0)
        batch = self.subset.batch(rows[places % len(rows)])
        return batch | {"weight": weight.astype(np.float32)}

    def _batch(self, step: int) -> Batch:
        """Returns the shards of this process, concatenated."""
        shards = [self.shard(step, index) for index in self.own]
        return {key: np.concatenate([shard[key] for shard in shards]) for key in shards[0]}

    def endless_shards(self) -> Iterator[Batch]:
        """Yields the shards of this process one by one, of one epoch after another."""
        while True:
            # At the beginning, as Keras does it where it takes batches from a PyDataset.
            self.on_epoch_end()
            for step in range(len(self)):
                for index in self.own:
                    with self._recording_error():
                        shard = self.shard(step, index)
                    yield shard
