"""Labelled image sources, calibration and parity picks.

``--data`` takes the name of a source (``cifar10``, ``cifar100``, ``digits``), a folder of class
folders, a folder of TFRecord shards, or an ``.npz`` file.
"""

from pathlib import Path
from typing import Literal, Protocol

from cct_export.data.dataset import Dataset, ImageShape
from cct_export.data.dataset import existing as _existing
from cct_export.data.sources import cifar10, cifar100, digits, folder, npz, tfrecord
from cct_export.errors import InvalidRequest


class NamedSource(Protocol):
    """What the module of a data set with a name provides."""

    def at_hand(self) -> bool:
        """Tells whether its images are on this machine."""
        ...

    def read(self, name: str, shape: ImageShape) -> Dataset:
        """Returns the data set with images of ``shape``."""
        ...


# Data sets that are known by their names; everything else is a path.
NAMED: dict[str, NamedSource] = {"cifar10": cifar10, "cifar100": cifar100, "digits": digits}


def at_hand(name: str) -> bool:
    """Tells whether ``read(name)`` finds its images on this machine."""
    if name in NAMED:
        return NAMED[name].at_hand()
    return Path(name).expanduser().exists()


def read(name: str, shape: ImageShape, on_corrupt: Literal["refuse", "skip"] = "refuse") -> Dataset:
    """Returns the dataset that ``--data name`` means.

    Images in folders and shards are read when they are asked for.

    Args:
        name: ``cifar10``, ``cifar100``, ``digits``, a folder of class folders or TFRecord shards,
            a shard, or an ``.npz`` file.
        shape: height, width and channels that the model takes.
        on_corrupt: what to do with an image that cannot be decoded. ``refuse``: raise when it is
            asked for. ``skip``: decode every image once now, log those that fail, and leave them
            out of the dataset.

    Raises:
        InvalidData: nothing there, or not usable; the message names the file and what to do.
        InvalidRequest: ``on_corrupt`` is neither.
    """
    if on_corrupt not in ("refuse", "skip"):
        raise InvalidRequest(f"on_corrupt={on_corrupt!r}: it is 'refuse' or 'skip'")
    dataset = NAMED[name].read(name, shape) if name in NAMED else _read_path(name, shape)
    if on_corrupt == "skip":
        from cct_export.data.encoded import without_corrupt

        return without_corrupt(dataset)
    return dataset


def _read_path(name: str, shape: ImageShape) -> Dataset:
    path = _existing(name)
    if tfrecord.shards_in(path):
        return tfrecord.read(name, shape)
    return folder.read(name, shape) if path.is_dir() else npz.read(name, shape)
