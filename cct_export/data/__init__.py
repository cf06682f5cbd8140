"""Labelled image sources, calibration and parity picks.

``--data`` takes the name of a source (``cifar10``, ``cifar100``, ``digits``), a folder of class
folders, a folder of TFRecord shards, or an ``.npz`` file.
"""

from pathlib import Path
from typing import Literal

from cct_export import registry
from cct_export.data.dataset import Dataset, ImageShape
from cct_export.data.dataset import existing as _existing
from cct_export.errors import InvalidRequest

_SOURCES = "cct_export.data.sources"
_BY_PATH = ("folder", "npz", "tfrecord")


def at_hand(name: str) -> bool:
    """Tells whether ``read(name)`` finds its images on this machine."""
    if _named(name):
        here: bool = registry.load(_SOURCES, name).at_hand()
        return here
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
    kind = name if _named(name) else _kind(name)
    dataset: Dataset = registry.load(_SOURCES, kind).read(name, shape)
    if on_corrupt == "skip":
        from cct_export.data.encoded import without_corrupt

        return without_corrupt(dataset)
    return dataset


def _named(name: str) -> bool:
    return name in registry.names(_SOURCES) and name not in _BY_PATH


def _kind(name: str) -> str:
    """Returns which source reads the path ``name``."""
    path = _existing(name)
    if registry.load(_SOURCES, "tfrecord").shards_in(path):
        return "tfrecord"
    return "folder" if path.is_dir() else "npz"
