"""Labelled images, and which of them serve calibration and parity.

``--data`` takes the name of a data set (``cifar10``, ``cifar100``, ``digits``), a folder of class
folders, a folder of TFRecord shards, or an ``.npz`` file.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from cct_export.data import folder, npz, tfrecord
from cct_export.data.dataset import Dataset, ImageShape
from cct_export.data.encoded import without_corrupt
from cct_export.data.named import NAMED
from cct_export.errors import InvalidData, InvalidRequest

# What to do with an image that cannot be decoded.
OnCorrupt = Literal["refuse", "skip"]


def is_available(name: str) -> bool:
    """Tells whether ``read(name)`` finds its images on this machine."""
    if name in NAMED:
        return NAMED[name].is_available()
    return Path(name).expanduser().exists()


def read(name: str, shape: ImageShape, on_corrupt: OnCorrupt = "refuse") -> Dataset:
    """Returns the dataset that ``--data name`` stands for.

    Images in folders and shards are decoded when they are used.

    Args:
        name: ``cifar10``, ``cifar100``, ``digits``, a folder of class folders or TFRecord shards,
            a shard, or an ``.npz`` file.
        shape: height, width and channels of the model's input.
        on_corrupt: ``refuse`` raises when an image that cannot be decoded is used. ``skip``
            decodes every image once now, logs those that fail, and leaves them out.

    Raises:
        InvalidData: missing or unusable; the message names the file and what to do.
        InvalidRequest: another value of ``on_corrupt``.
    """
    if on_corrupt not in ("refuse", "skip"):
        raise InvalidRequest(f"on_corrupt={on_corrupt!r}: it is 'refuse' or 'skip'")
    dataset = NAMED[name].read(shape) if name in NAMED else _read_path(name, shape)
    return without_corrupt(dataset) if on_corrupt == "skip" else dataset


def _read_path(name: str, shape: ImageShape) -> Dataset:
    path = Path(name).expanduser()
    if not name or not (path.is_file() or path.is_dir()):
        raise InvalidData(
            f"no such data: {name!r}: give cifar10, cifar100, digits, a folder, TFRecord shards "
            "or an .npz file"
        )
    if tfrecord.shards_by_split(path):
        dataset = tfrecord.read(path, shape)
    else:
        dataset = folder.read(path, shape) if path.is_dir() else npz.read(path, shape)
    return replace(dataset, name=name)
