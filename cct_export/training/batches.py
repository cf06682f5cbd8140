"""Batches whose order depends on seed and epoch alone, so that a resumed run repeats them."""

import math
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
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        targets = np.eye(self.classes, dtype=np.float32)[self.split.labels[rows]]
        return ({"image": self.split.images(rows), "target": targets},)

    def on_epoch_end(self) -> None:
        """Goes on to the order of the next epoch."""
        self.epoch += 1
        self._shuffle()
