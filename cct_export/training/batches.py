"""Batches whose order depends on seed and epoch alone, so that a resumed run repeats them."""

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import ArraySplit, ImageShape, Split
from cct_export.errors import CCTExportError

# Bytes of images that are read once and kept; more are read again in every epoch.
_RESIDENT = 2 * 2**30
# How many batches of those are read ahead at least (a framework may ask for some before it takes
# them), and by how many threads.
_AHEAD = 4
_READERS = 2

Batch = dict[str, Any]


def resident(split: Split, shape: ImageShape) -> Split:
    """Returns the split with its images in memory, if they are few enough.

    Args:
        split: images and labels.
        shape: of an image.
    """
    count = len(split.labels)
    if isinstance(split, ArraySplit) or count * math.prod(shape) > _RESIDENT:
        return split
    return ArraySplit(split.images(np.arange(count)), split.labels)


class Batches(keras.utils.PyDataset):
    """Shuffled batches of one epoch after another, read when they are asked for.

    What is not in memory is read ahead here and not by Keras, which on JAX would begin an epoch
    with what it had read ahead in another order.

    Args:
        split: images and labels.
        rows: int64 ``(N,)``, those of the split that take part.
        classes: number of classes, for the one-hot targets.
        batch: images per step; the last batch may be smaller.
        seed: with the epoch it fixes the order; None keeps the images in order.
        epoch: the epoch to begin with.

    Attributes:
        failure: why images could not be read; frameworks hide it in an error of their own.
    """

    def __init__(
        self,
        split: Split,
        rows: NDArray[np.int64],
        classes: int,
        batch: int,
        seed: int | None,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self.split = split
        self.rows = rows
        self.classes = classes
        self.batch = batch
        self.seed = seed
        self.epoch = epoch
        self.failure: CCTExportError | None = None
        self._readers = None if isinstance(split, ArraySplit) else ThreadPoolExecutor(_READERS)
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = self.rows
        if self.seed is not None:
            self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.order)
        self._read: dict[int, Future[Batch]] = {}

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.rows) / self.batch)

    def __getitem__(self, step: int) -> tuple[Batch]:
        """Returns images, uint8, and one-hot targets, float32, of one step."""
        if self._readers is None:
            return (self._batch(step),)
        for near in range(step, min(step + 1 + _AHEAD, len(self))):
            if near not in self._read:
                self._read[near] = self._readers.submit(self._batch, near)
        with self._noting():
            return (self._read.pop(step).result(),)

    def _batch(self, step: int) -> Batch:
        return self._taken(self.order[step * self.batch : (step + 1) * self.batch])

    def _taken(self, rows: np.ndarray) -> Batch:
        targets = np.eye(self.classes, dtype=np.float32)[self.split.labels[rows]]
        return {"image": self.split.images(rows), "target": targets}

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Notes why what is asked for now cannot be read."""
        try:
            yield
        except CCTExportError as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Reads nothing ahead any more."""
        if self._readers is not None:
            self._readers.shutdown(wait=False, cancel_futures=True)

    def on_epoch_end(self) -> None:
        """Goes on to the order of the next epoch."""
        self.epoch += 1
        self._shuffle()


class SharedBatches(Batches):
    """The same batches, of which this process takes its part only.

    A batch is cut into as many equal parts as there are replicas. Where that does not come out
    even, as in the last batch of an epoch, images of the batch are repeated and weigh nothing, so
    that loss and metrics are those of the batch itself.

    Args:
        parts: into how many the batches are cut.
        mine: which of them this process takes.
        *arguments: as of ``Batches``.
    """

    def __init__(self, parts: int, mine: range, *arguments: Any) -> None:
        self.parts = parts
        self.mine = mine
        super().__init__(*arguments)

    def part(self, step: int, part: int) -> Batch:
        """Returns one part of a step: images, targets and ``weight``, float32.

        The weights of a whole step sum up to the images that it then has, repeated ones included.
        """
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        each = math.ceil(len(rows) / self.parts)
        places = np.arange(part * each, (part + 1) * each)
        weight = np.where(places < len(rows), each * self.parts / len(rows), 0)
        taken = self._taken(rows[places % len(rows)])
        return taken | {"weight": weight.astype(np.float32)}

    def _batch(self, step: int) -> Batch:
        """Returns the parts of this process, one after the other."""
        parts = [self.part(step, part) for part in self.mine]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def endless(self) -> Iterator[Batch]:
        """Yields the parts of this process, each by itself, of one epoch after another."""
        while True:
            # At the beginning, since `fit` does so too with batches that it takes itself.
            self.on_epoch_end()
            for step in range(len(self)):
                for part in self.mine:
                    with self._noting():
                        made = self.part(step, part)
                    yield made
