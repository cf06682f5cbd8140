"""Batches whose order depends on seed and epoch alone, so that a resumed run repeats them."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import ArraySplit, ImageShape, Split

# Bytes of images that are read once and kept; more are read again in every epoch.
_RESIDENT = 2 * 2**30
_READERS = 2


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

    Args:
        split: images and labels.
        rows: int64 ``(N,)``, those of the split that take part.
        classes: number of classes, for the one-hot targets.
        batch: images per step; the last batch may be smaller.
        seed: with the epoch it fixes the order; None keeps the images in order.
        epoch: the epoch to begin with.
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
        # What is in memory is at hand; files are read while the step before is computed.
        waiting = 0 if isinstance(split, ArraySplit) else _READERS
        super().__init__(workers=max(1, waiting), max_queue_size=2 * _READERS)
        self.split = split
        self.rows = rows
        self.classes = classes
        self.batch = batch
        self.seed = seed
        self.epoch = epoch
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = self.rows
        if self.seed is not None:
            self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.order)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.rows) / self.batch)

    def __getitem__(self, step: int) -> tuple[dict[str, Any]]:
        """Returns images, uint8, and one-hot targets, float32, of one step."""
        return self._taken(self.order[step * self.batch : (step + 1) * self.batch])

    def _taken(self, rows: np.ndarray) -> tuple[dict[str, Any]]:
        targets = np.eye(self.classes, dtype=np.float32)[self.split.labels[rows]]
        return ({"image": self.split.images(rows), "target": targets},)

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

    def part(self, step: int, part: int) -> dict[str, Any]:
        """Returns one part of a step: images, targets and ``weight``, float32.

        The weights of a whole step sum up to the images that it then has, repeated ones included.
        """
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        each = math.ceil(len(rows) / self.parts)
        places = np.arange(part * each, (part + 1) * each)
        weight = np.where(places < len(rows), each * self.parts / len(rows), 0)
        (taken,) = self._taken(rows[places % len(rows)])
        return taken | {"weight": weight.astype(np.float32)}

    def __getitem__(self, step: int) -> tuple[dict[str, Any]]:
        """Returns the parts of this process, one after the other."""
        parts = [self.part(step, part) for part in self.mine]
        return ({key: np.concatenate([part[key] for part in parts]) for key in parts[0]},)

    def endless(self) -> Iterator[dict[str, Any]]:
        """Yields the parts of this process, each by itself, of one epoch after another."""
        while True:
            # At the beginning, since `fit` does so too with batches that it takes itself.
            self.on_epoch_end()
            for step in range(len(self)):
                for part in self.mine:
                    yield self.part(step, part)
