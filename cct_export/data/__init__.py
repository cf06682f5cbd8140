"""Labelled image sources, calibration and parity picks.

``--data`` takes the name of a source (``cifar10``, ``digits``), a folder or an ``.npz`` file.
"""

from pathlib import Path

from cct_export import registry
from cct_export.data.dataset import Dataset, ImageShape
from cct_export.data.dataset import existing as _existing

_SOURCES = "cct_export.data.sources"
_BY_PATH = ("folder", "npz")


def at_hand(name: str) -> bool:
    """Tells whether ``read(name)`` finds its images on this machine."""
    if name in registry.names(_SOURCES) and name not in _BY_PATH:
        here: bool = registry.load(_SOURCES, name).at_hand()
        return here
    return Path(name).expanduser().exists()


def read(name: str, shape: ImageShape) -> Dataset:
    """Returns the dataset that ``--data name`` means.

    Args:
        name: ``cifar10``, ``digits``, a folder or an ``.npz`` file.
        shape: height, width and channels that the model takes.

    Raises:
        InvalidData: nothing there, or not usable; the message names the file and what to do.
    """
    if name in registry.names(_SOURCES) and name not in _BY_PATH:
        kind = name
    else:
        kind = "folder" if _existing(name).is_dir() else "npz"
    dataset: Dataset = registry.load(_SOURCES, kind).read(name, shape)
    return dataset
