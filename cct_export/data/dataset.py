"""Labelled images: what every source of data gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cct_export.errors import InvalidData

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
ImageShape = tuple[int, int, int]
# Where the data does not name its classes; ImageNet-21k has 21,841.
MOST_CLASSES = 100_000


class Split(Protocol):
    """Images with labels, read when they are asked for."""

    @property
    def labels(self) -> Labels:
        """Index into the dataset's class names, int64 ``(N,)``."""
        ...

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """Returns the images at ``indices`` as uint8 ``(n, height, width, channels)``, 0–255."""
        ...


@dataclass(frozen=True)
class ArraySplit:
    """A split that is already in memory."""

    pixels: Images
    labels: Labels

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """Returns the images at ``indices``."""
        return self.pixels[np.asarray(indices, dtype=np.int64)]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split with class names.

    Attributes:
        name: what the user typed.
        classes: class names; a label is an index into them.
        train: for training and calibration.
        test: for parity and accuracy.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split


def check_classes(dataset: Dataset, known: Sequence[str]) -> None:
    """Raises ``InvalidData`` if a model that knows the classes ``known`` has others."""
    if known and dataset.classes != tuple(known):
        raise InvalidData(
            f"{dataset.name} has the classes {', '.join(dataset.classes[:10])}; the model knows "
            f"{', '.join(known[:10])}: give the data it was trained for"
        )


def pick(split: Split, count: int, seed: int) -> NDArray[np.int64]:
    """Returns up to ``count`` distinct indices of ``split``, chosen by ``seed``, in order."""
    total = len(split.labels)
    chosen = np.random.default_rng(seed).permutation(total)[:count]
    return np.sort(chosen)


def checked_labels(labels: np.ndarray, images: int, classes: int | None, where: str) -> Labels:
    """Returns ``labels`` as int64 ``(N,)`` after checking them.

    Args:
        labels: integers ``(N,)`` or ``(N, 1)``.
        images: number of images they belong to.
        classes: number of classes, or None if not known.
        where: file and key, for the message.

    Raises:
        InvalidData: not integers, another count than the images, or out of range.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InvalidData(
            f"{where}: labels must be integers of shape (N,), not {labels.dtype} {labels.shape}"
        )
    if len(labels) != images:
        raise InvalidData(f"{where}: {len(labels)} labels for {images} images")
    if len(labels) and labels.min() < 0:
        raise InvalidData(f"{where}: label {labels.min()} is out of range: labels start at 0")
    limit = MOST_CLASSES if classes is None else classes
    if len(labels) and labels.max() >= limit:
        raise InvalidData(
            f"{where}: label {labels.max()} is out of range: there are {limit} classes at most"
        )
    return labels.astype(np.int64)


def checked_pixels(pixels: np.ndarray, shape: ImageShape, where: str) -> Images:
    """Returns ``pixels`` as uint8 ``(N, *shape)`` after checking them.

    Raises:
        InvalidData: another dtype, size or channel count than the model takes, or no images.
    """
    if pixels.ndim == 3 and shape[2] == 1:
        pixels = pixels[..., np.newaxis]
    if pixels.dtype != np.uint8:
        raise InvalidData(f"{where}: images must be uint8 (0-255), not {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[1:] != shape:
        raise InvalidData(
            f"{where}: images have shape {pixels.shape}, the model takes (N, {shape[0]}, "
            f"{shape[1]}, {shape[2]}): resize the array first"
        )
    if len(pixels) == 0:
        raise InvalidData(f"{where}: there is no image in it")
    return pixels


def existing(path: str | Path) -> Path:
    """Returns ``path`` if it exists, else raises ``InvalidData``."""
    found = Path(path).expanduser()
    if not str(path) or not (found.is_file() or found.is_dir()):
        raise InvalidData(
            f"no such data: {str(path)!r}: give cifar10, cifar100, digits, a folder, "
            "TFRecord shards or an .npz file"
        )
    return found
