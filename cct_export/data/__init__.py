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
from cct_export.errors import InvalidRequest
from cct_export.files import expand_user, similar
from cct_export.names import closest, find
from cct_export.specs import DEFAULT_RESIZE, Resize

# What to do with an image that cannot be decoded.
OnCorrupt = Literal["refuse", "skip"]


def is_available(name: str) -> bool:
    """Tells whether ``read(name)`` finds its images on this machine."""
    try:
        name = find_data(name)
    except InvalidRequest:
        return False
    return name not in NAMED or NAMED[name].is_available()


def is_downloaded(name: str) -> bool:
    """Tells whether ``read(name)`` would download its images, which are not on this machine.

    Raises:
        InvalidRequest: there is no such data.
    """
    name = find_data(name)
    return name in NAMED and NAMED[name].downloaded and not NAMED[name].is_available()


def find_data(name: str | Path) -> str:
    """Returns the name of a data set as ``NAMED`` has it, or the path of images that exist.

    Raises:
        InvalidRequest: there is no such data; the closest name is suggested.
    """
    name = str(name)
    path, known = expand_user(name), find(name, NAMED)
    if name and (path.is_file() or path.is_dir()) and name not in NAMED:
        return name
    if known is not None:
        return known
    kinds = f"{', '.join(NAMED)}, a folder, TFRecord shards or an .npz file"
    if name and path.exists():
        raise InvalidRequest(f"{name} is neither a file nor a folder: give {kinds}")
    close = closest(name, NAMED) or similar(path)
    hint = f"did you mean {close}? ({kinds})" if close else f"give {kinds}"
    raise InvalidRequest(f"no such data: {name!r}: {hint}")


def read(
    name: str,
    shape: ImageShape,
    on_corrupt: OnCorrupt = "refuse",
    resize: Resize = DEFAULT_RESIZE,
) -> Dataset:
    """Returns the dataset that ``--data name`` stands for.

    Images in folders and shards are decoded when they are used.

    Args:
        name: ``cifar10``, ``cifar100``, ``digits``, a folder of class folders or TFRecord shards,
            a shard, or an ``.npz`` file.
        shape: height, width and channels of the model's input.
        on_corrupt: ``refuse`` raises when an image that cannot be decoded is used. ``skip``
            decodes every image once now, logs those that fail, and leaves them out.
        resize: how images of folders and shards that have another size are resized.

    Raises:
        InvalidData: unusable; the message names the file and what to do.
        InvalidRequest: there is no such data, or another value of ``on_corrupt``.
    """
    if on_corrupt not in ("refuse", "skip"):
        raise InvalidRequest(f"on_corrupt={on_corrupt!r}: it is 'refuse' or 'skip'")
    name = find_data(name)
    dataset = NAMED[name].read(shape) if name in NAMED else _read_path(name, shape, resize)
    return without_corrupt(dataset) if on_corrupt == "skip" else dataset


def _read_path(name: str, shape: ImageShape, resize: Resize) -> Dataset:
    path = expand_user(name)
    if tfrecord.shards_by_split(path):
        dataset = tfrecord.read(path, shape, resize)
    else:
        is_folder = path.is_dir()
        dataset = folder.read(path, shape, resize) if is_folder else npz.read(path, shape)
    return replace(dataset, name=name)
