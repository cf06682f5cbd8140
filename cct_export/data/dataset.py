"""The records that every data source returns, and the checks that sources share."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cct_export.errors import InvalidData

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = Sequence[int] | NDArray[np.int64]
ImageShape = tuple[int, int, int]
# The limit where the data does not name its classes; ImageNet-21k has 21,841.
MAX_CLASSES = 100_000
_FINGERPRINT_SAMPLES = 16


class Split(Protocol):
    """Images with labels, read when they are used."""

    @property
    def labels(self) -> Labels:
        """Index into the dataset's class names, int64 ``(N,)``."""
        ...

    def images(self, indices: Indices) -> Images:
        """Returns the images at ``indices`` as uint8 ``(n, height, width, channels)``, 0–255."""
        ...

    def checksum(self, indices: Indices) -> int:
        """Returns the CRC-32 of the images at ``indices`` as they are stored."""
        ...


@dataclass(frozen=True)
class ArraySplit:
    """A split in memory.

    Attributes:
        pixels: uint8 ``(N, height, width, channels)``, 0–255.
        labels: int64 ``(N,)``.
    """

    pixels: Images
    labels: Labels

    def images(self, indices: Indices) -> Images:
        """Returns the images at ``indices``."""
        return self.pixels[np.asarray(indices, dtype=np.int64)]

    def checksum(self, indices: Indices) -> int:
        """Returns the CRC-32 of the pixels of the images at ``indices``."""
        return zlib.crc32(np.ascontiguousarray(self.images(indices)).tobytes())


@dataclass(frozen=True)
class Dataset:
    """A training and a test split with class names.

    Attributes:
        name: what the user typed.
        classes: class names; a label is an index into them.
        train: for training and calibration.
        test: for parity and accuracy.

    Raises:
        InvalidData: a class name cannot be written to a file, such as that of a folder whose name
            is not UTF-8.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    def __post_init__(self) -> None:
        for name in self.classes:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InvalidData(
                    f"{self.name}: the class {name!a} is no text in UTF-8: rename it"
                ) from None


def fingerprint(dataset: Dataset) -> dict[str, int]:
    """Returns counts and checksums that reveal other data under the same name.

    Args:
        dataset: the data.

    Returns:
        For each split the number of images, the CRC-32 of all labels, and that of 16 evenly spaced
        images.

    Raises:
        InvalidData: one of these images cannot be read.
    """
    values = {}
    for name, split in (("training", dataset.train), ("test", dataset.test)):
        count = len(split.labels)
        samples = np.unique(np.linspace(0, count - 1, _FINGERPRINT_SAMPLES).astype(np.int64))
        values[f"{name} images"] = count
        values[f"{name} labels"] = zlib.crc32(split.labels.astype("<i8").tobytes())
        values[f"{name} content"] = split.checksum(samples)
    return values


def check_classes(dataset: Dataset, labels: Sequence[str]) -> None:
    """Raises ``InvalidData`` if ``dataset`` has other classes than a model with ``labels``."""
    if labels and dataset.classes != tuple(labels):
        raise InvalidData(
            f"{dataset.name} has the classes {', '.join(dataset.classes[:10])}; the model knows "
            f"{', '.join(labels[:10])}: give the data it was trained for"
        )


def checked_labels(labels: np.ndarray, images: int, classes: int | None, where: str) -> Labels:
    """Returns ``labels`` as int64 ``(N,)`` after checking them.

    Args:
        labels: integers ``(N,)`` or ``(N, 1)``.
        images: number of images they belong to.
        classes: number of classes, or None if unknown.
        where: file and key, for the message.

    Raises:
        InvalidData: not integers, out of range, or not one for each image.
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
    limit = MAX_CLASSES if classes is None else classes
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
        raise InvalidData(f"{where}: it holds no images")
    return pixels
