"""Splits whose images stay encoded in their files until they are used."""

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import Dataset, Images, ImageShape, Indices, Labels, Split
from cct_export.data.decoding import decode_bytes
from cct_export.errors import InvalidData
from cct_export.specs import DEFAULT_RESIZE, Resize

# Threads help above this size: Pillow decodes without Python's lock. For a thumbnail, Python's own
# work exceeds the decoding, and threads would only wait for each other.
MIN_BYTES_FOR_THREADS = 8192
MAX_THREADS = 16
IMAGES_PER_TASK = 4
# How many images are decoded at a time to find corrupt ones.
CHECK_BATCH = 4096
TEST_FRACTION = 0.1
SPLIT_SEED = 0
_SKIP_HINT = "; training leaves such images out with --skip-corrupt"

Result = TypeVar("Result")
Size = tuple[int, int]

log = logging.getLogger(__name__)


class Store(Protocol):
    """Encoded images, by number."""

    def name(self, item: int) -> str:
        """Returns what messages call the image ``item``."""
        ...

    def size_bytes(self, item: int) -> int:
        """Returns the approximate size of the image ``item``; 0 if unknown."""
        ...

    def read(self, item: int) -> bytes:
        """Returns the image ``item`` as it is encoded.

        Raises:
            InvalidData: it cannot be read.
        """
        ...


class EncodedSplit:
    """Labelled images of a store; each is read and decoded when it is used.

    Args:
        store: the encoded images.
        items: int64 ``(N,)``, numbers of images in the store.
        labels: int64 ``(N,)``.
        shape: height, width and channels of the decoded images (3: RGB, 1: grey).
        resize: how images of another size are resized.
    """

    def __init__(
        self,
        store: Store,
        items: NDArray[np.int64],
        labels: Labels,
        shape: ImageShape,
        resize: Resize = DEFAULT_RESIZE,
    ) -> None:
        self.store = store
        self.items = items
        self.labels = labels
        self.shape = shape
        self.resize = resize
        self._resizing_logged = False

    def images(self, indices: Indices) -> Images:
        """Returns the images at ``indices`` in this order, resized to the shape.

        Larger images are decoded by several threads.

        Raises:
            InvalidData: an image cannot be read; the message names the first in ``indices``.
        """
        items = self.items[np.asarray(indices, dtype=np.int64)]
        pixels = np.empty((len(items), *self.shape), np.uint8)

        def decode_row(row: int) -> Size:
            try:
                pixels[row], size = self._decode(int(items[row]))
            except InvalidData as error:
                raise InvalidData(f"{error}{_SKIP_HINT}") from error
            return size

        sizes = self._map(decode_row, items)
        if not self._resizing_logged:
            self._log_resizing(items, sizes)
        return pixels

    def checksum(self, indices: Indices) -> int:
        """Returns the CRC-32 of the encoded images at ``indices``.

        The decoded pixels of a JPEG depend on the version of the library.
        """
        checksum = 0
        for item in self.items[np.asarray(indices, dtype=np.int64)]:
            checksum = zlib.crc32(self.store.read(int(item)), checksum)
        return checksum

    def decoding_errors(self) -> dict[int, str]:
        """Decodes every image once; returns the message of each that fails, by index."""
        errors: dict[int, str] = {}
        for start in range(0, len(self.items), CHECK_BATCH):
            items = self.items[start : start + CHECK_BATCH]

            def error_of(row: int, items: NDArray[np.int64] = items) -> str:
                try:
                    self._decode(int(items[row]))
                except InvalidData as error:
                    return str(error)
                return ""

            messages = enumerate(self._map(error_of, items), start)
            errors |= {index: message for index, message in messages if message}
        return errors

    def subset(self, indices: NDArray[np.int64]) -> "EncodedSplit":
        """Returns the split of the images at ``indices`` alone."""
        items, labels = self.items[indices], self.labels[indices]
        return EncodedSplit(self.store, items, labels, self.shape, self.resize)

    def _decode(self, item: int) -> tuple[Images, Size]:
        return decode_bytes(self.store.read(item), self.store.name(item), self.shape, self.resize)

    def _map(self, function: Callable[[int], Result], items: NDArray[np.int64]) -> list[Result]:
        """Returns ``function(row)`` for every row of ``items``, in order, computed by threads."""
        threads = 1
        if len(items) > IMAGES_PER_TASK:
            large = self.store.size_bytes(int(items[0])) >= MIN_BYTES_FOR_THREADS
            threads = min(_usable_cores(), MAX_THREADS) if large else 1
        if threads == 1:
            return [function(row) for row in range(len(items))]

        def task(start: int) -> list[Result]:
            return [function(row) for row in range(start, min(start + IMAGES_PER_TASK, len(items)))]

        # A new pool for each call: a forked process inherits a pool without its threads.
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(task, range(0, len(items), IMAGES_PER_TASK))
            return [result for part in parts for result in part]

    def _log_resizing(self, items: NDArray[np.int64], sizes: Sequence[Size]) -> None:
        """Logs once that images are resized, and how many sizes the first ones have."""
        row = next((row for row, size in enumerate(sizes) if size != self.shape[:2]), None)
        if row is None:
            return
        self._resizing_logged = True
        several = len(set(sizes))
        log.info(
            "%s is %d×%d%s: images are resized to %d×%d (%s)",
            self.store.name(int(items[row])), sizes[row][1], sizes[row][0],
            f", the first {len(sizes)} images have {several} sizes" if several > 1 else "",
            self.shape[1], self.shape[0], self.resize.description,
        )  # fmt: skip


def train_test_split(
    store: Store, labels: Labels, shape: ImageShape, name: str, resize: Resize = DEFAULT_RESIZE
) -> tuple[EncodedSplit, EncodedSplit]:
    """Returns 90 % of the images of ``store`` for training and 10 % for testing.

    The split depends on the number of images alone.

    Args:
        store: the images.
        labels: int64 ``(N,)``, of all its images.
        shape: height, width and channels of the decoded images.
        name: what messages call the data.
        resize: how images of another size are resized.

    Raises:
        InvalidData: there is only one image.
    """
    total = len(labels)
    if total < 2:
        raise InvalidData(f"{name}: one image cannot be split into training and test")
    order = np.random.default_rng(SPLIT_SEED).permutation(total)
    cut = max(1, round(total * TEST_FRACTION))
    train, test = np.sort(order[cut:]), np.sort(order[:cut])
    return (
        EncodedSplit(store, train, labels[train], shape, resize),
        EncodedSplit(store, test, labels[test], shape, resize),
    )


def check_readable(split: Split) -> None:
    """Decodes every image of an encoded split once.

    Raises:
        InvalidData: an image cannot be decoded; the message names the first.
    """
    if isinstance(split, EncodedSplit):
        for message in split.decoding_errors().values():
            raise InvalidData(f"{message}{_SKIP_HINT}")


def without_corrupt(dataset: Dataset) -> Dataset:
    """Returns ``dataset`` without the images that cannot be decoded, and logs each of them.

    The result depends on the files alone, so that a resumed run has the same images.

    Raises:
        InvalidData: no image is left in a split, or in a class of the training split.
    """
    return replace(
        dataset,
        train=_readable(dataset.train, f"{dataset.name}: training", dataset.classes),
        test=_readable(dataset.test, f"{dataset.name}: test", None),
    )


def _readable(split: Split, name: str, classes: Sequence[str] | None) -> Split:
    """Returns ``split`` without corrupt images; each class of ``classes`` must keep one."""
    if not isinstance(split, EncodedSplit):
        return split
    total = len(split.items)
    log.info("%s images: each of the %d is decoded once to find corrupt ones", name, total)
    errors = split.decoding_errors()
    for message in errors.values():
        log.warning("left out: %s", message)
    if len(errors) == total:
        raise InvalidData(f"{name} images: none of the {total} can be read")
    if not errors:
        return split
    log.warning("%s images: left out %d of %d that cannot be read", name, len(errors), total)
    readable = split.subset(np.setdiff1d(np.arange(total), list(errors)))
    lost = np.setdiff1d(split.labels, readable.labels)
    if classes is not None and len(lost):
        raise InvalidData(f"{name} images: none of the class {classes[lost[0]]!r} can be read")
    return readable


def _usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
