"""Batches whose order depends on seed and epoch alone, so that a resumed run repeats them."""

import math
from typing import Any

import keras
import numpy as np

from cct_export.data.dataset import Images, Labels


class Batches(keras.utils.PyDataset):
    """Shuffled batches of one epoch after another.

    Args:
        pixels: uint8 ``(N, height, width, channels)``.
        labels: int64 ``(N,)``.
        classes: number of classes, for the one-hot targets.
        batch: images per step; the last batch may be smaller.
        seed: with the epoch it fixes the order; None keeps the images in order.
        epoch: the epoch to begin with.
    """

    def __init__(
        self,
        pixels: Images,
        labels: Labels,
        classes: int,
        batch: int,
        seed: int | None,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self.pixels = pixels
        self.labels = labels
        self.classes = classes
        self.batch = batch
        self.seed = seed
        self.epoch = epoch
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.arange(len(self.labels))
        if self.seed is not None:
            self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.order)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.labels) / self.batch)

    def __getitem__(self, step: int) -> tuple[dict[str, Any]]:
        """Returns images, uint8, and one-hot targets, float32, of one step."""
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        targets = np.eye(self.classes, dtype=np.float32)[self.labels[rows]]
        return ({"image": self.pixels[rows], "target": targets},)

    def on_epoch_end(self) -> None:
        """Goes on to the order of the next epoch."""
        self.epoch += 1
        self._shuffle()
