"""Splits whose images stay encoded where they are until they are asked for."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import Dataset, Images, ImageShape, Labels, Split
from cct_export.data.decoding import decode_bytes
from cct_export.errors import InvalidData

# Above this a thread helps: Pillow decodes without Python's lock. Of a thumbnail, what Python does
# around the decoding takes longer than the decoding, and threads would only wait for each other.
WORTH_A_THREAD_BYTES = 8192
MOST_THREADS = 16
# Images that a thread takes at a time.
BLOCK = 4
CHECKED_AT_ONCE = 4096
TEST_FRACTION = 0.1
_WAY_OUT = "; training leaves such images out with --skip-corrupt"
SPLIT_SEED = 0

Result = TypeVar("Result")
Size = tuple[int, int]

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where encoded images are."""

    def where(self, item: int) -> str:
        """Returns what a message calls the image ``item``."""
        ...

    def size_bytes(self, item: int) -> int:
        """Returns about how long ``item`` is; 0 where it cannot be told."""
        ...

    def encoded(self, item: int) -> bytes:
        """Returns the PNG or JPEG ``item``.

        Raises:
            InvalidData: it cannot be read.
        """
        ...


class EncodedSplit:
    """Labelled images of a store; each is read and decoded when it is asked for.

    Args:
        store: where they are.
        items: int64 ``(N,)``, which images of the store.
        labels: int64 ``(N,)``.
        shape: height, width, channels of the images to give (3: RGB, 1: grey).
    """

    def __init__(
        self, store: Store, items: NDArray[np.int64], labels: Labels, shape: ImageShape
    ) -> None:
        self.store = store
        self.items = items
        self.labels = labels
        self.shape = shape
        self.resize_said = False

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """Returns the images at ``indices``, resized bilinearly where their size differs.

        Several are decoded at a time; the order is that of ``indices``, and of two broken images
        the first is named.

        Raises:
            InvalidData: an image cannot be read; the message names it.
        """
        items = self.items[np.asarray(indices, dtype=np.int64)]
        result = np.empty((len(items), *self.shape), np.uint8)

        def put(row: int) -> Size:
            try:
                result[row], size = self._decoded(int(items[row]))
            except InvalidData as error:
                raise InvalidData(f"{error}{_WAY_OUT}") from error
            return size

        sizes = self._each(put, items)
        if not self.resize_said:
            self._say_resized(items, sizes)
        return result

    def faults(self) -> dict[int, str]:
        """Decodes every image once and returns what is wrong, by index, with those that fail."""
        found: dict[int, str] = {}
        for start in range(0, len(self.items), CHECKED_AT_ONCE):
            items = self.items[start : start + CHECKED_AT_ONCE]

            def fault(row: int, items: NDArray[np.int64] = items) -> str:
                try:
                    self._decoded(int(items[row]))
                except InvalidData as error:
                    return str(error)
                return ""

            messages = enumerate(self._each(fault, items), start)
            found |= {index: message for index, message in messages if message}
        return found

    def encoded(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """Yields the PNG or JPEG of each of the images at ``indices``."""
        for item in self.items[indices]:
            yield self.store.encoded(int(item))

    def only(self, indices: NDArray[np.int64]) -> "EncodedSplit":
        """Returns the split of the images at ``indices`` alone."""
        return EncodedSplit(self.store, self.items[indices], self.labels[indices], self.shape)

    def _decoded(self, item: int) -> tuple[Images, Size]:
        return decode_bytes(self.store.encoded(item), self.store.where(item), self.shape)

    def _each(self, function: Callable[[int], Result], items: NDArray[np.int64]) -> list[Result]:
        """Returns ``function`` of every row of ``items``, in order, by several threads."""
        threads = 1
        if len(items) > BLOCK and self.store.size_bytes(int(items[0])) >= WORTH_A_THREAD_BYTES:
            threads = min(_cores(), MOST_THREADS)
        if threads == 1:
            return [function(row) for row in range(len(items))]

        def block(start: int) -> list[Result]:
            return [function(row) for row in range(start, min(start + BLOCK, len(items)))]

        # Made for this call: a pool that is kept would be dead in a process that was forked.
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(block, range(0, len(items), BLOCK))
            return [result for part in parts for result in part]

    def _say_resized(self, items: NDArray[np.int64], sizes: Sequence[Size]) -> None:
        """Says once that images are resized, and how many sizes they have as far as is seen."""
        other = [row for row, size in enumerate(sizes) if size != self.shape[:2]]
        if not other:
            return
        self.resize_said = True
        first, several = other[0], len(set(sizes))
        log.info(
            "%s is %d×%d%s: images are resized to %d×%d (bilinear)",
            self.store.where(int(items[first])), sizes[first][1], sizes[first][0],
            f", the first {len(sizes)} images have {several} sizes" if several > 1 else "",
            self.shape[1], self.shape[0],
        )  # fmt: skip


def split_in_two(
    store: Store, labels: Labels, shape: ImageShape, name: str
) -> tuple[EncodedSplit, EncodedSplit]:
    """Returns nine tenths of the images of ``store`` for training and one for testing.

    Which are which depends on their number alone.

    Args:
        store: the images.
        labels: int64 ``(N,)``, of all its images.
        shape: height, width and channels to give.
        name: what a message calls the data.

    Raises:
        InvalidData: there is one image only.
    """
    total = len(labels)
    if total < 2:
        raise InvalidData(f"{name}: one image cannot be split into training and test")
    order = np.random.default_rng(SPLIT_SEED).permutation(total)
    cut = max(1, round(total * TEST_FRACTION))
    train, test = np.sort(order[cut:]), np.sort(order[:cut])
    return (
        EncodedSplit(store, train, labels[train], shape),
        EncodedSplit(store, test, labels[test], shape),
    )


def check_readable(split: Split) -> None:
    """Decodes every image once; arrays have none that cannot be.

    Raises:
        InvalidData: an image cannot be read; the message names the first.
    """
    if isinstance(split, EncodedSplit):
        for fault in split.faults().values():
            raise InvalidData(f"{fault}{_WAY_OUT}")


def without_corrupt(dataset: Dataset) -> Dataset:
    """Returns ``dataset`` without the images that cannot be decoded, each named in the log.

    Which those are depends on the files alone, so that a resumed run has the same images. Arrays
    have none.

    Raises:
        InvalidData: none is left of a split, or of a class of the training split.
    """
    return replace(
        dataset,
        train=_checked(dataset.train, f"{dataset.name}: training", dataset.classes),
        test=_checked(dataset.test, f"{dataset.name}: test", None),
    )


def _checked(split: Split, name: str, classes: Sequence[str] | None) -> Split:
    """Returns ``split`` without what cannot be decoded.

    Args:
        split: of any kind.
        name: what a message calls it, before the word images.
        classes: their names where none may lose all its images; None if any may.
    """
    if not isinstance(split, EncodedSplit):
        return split
    total = len(split.items)
    log.info("%s images: each of the %d is decoded once to find corrupt ones", name, total)
    faults = split.faults()
    for message in faults.values():
        log.warning("left out: %s", message)
    if len(faults) == total:
        raise InvalidData(f"{name} images: none of the {total} can be read")
    if not faults:
        return split
    log.warning("%s images: %d of %d left out, which cannot be read", name, len(faults), total)
    kept = split.only(np.setdiff1d(np.arange(total), list(faults)))
    lost = np.setdiff1d(split.labels, kept.labels)
    if classes is not None and len(lost):
        raise InvalidData(f"{name} images: none of the class {classes[lost[0]]!r} can be read")
    return kept


def _cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
