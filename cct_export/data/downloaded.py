"""Datasets that Keras downloads, once, when this machine can."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cct_export.data.dataset import Dataset, ImageShape
from cct_export.data.sources import npz
from cct_export.errors import InvalidData
from cct_export.files import replacing

SOCKET_TIMEOUT_S = 10
DOWNLOAD_LIMIT_S = 900

# A process of its own: Keras must not be imported where a .tflite is benchmarked, and only a
# process can be stopped when name resolution or a proxy hangs.
_DOWNLOAD = f"""
import socket, sys
socket.setdefaulttimeout({SOCKET_TIMEOUT_S})
import keras, numpy
(a, b), (c, d) = getattr(keras.datasets, sys.argv[1]).load_data()
numpy.savez(sys.argv[2], x_train=a, y_train=b, x_test=c, y_test=d)
"""


def cache_file(name: str) -> Path:
    """Returns where the arrays of ``name`` are kept after the first use (XDG_CACHE_HOME)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "cct-export" / f"{name}.npz"


def read(name: str, shape: ImageShape, classes: Sequence[str]) -> Dataset:
    """Returns a dataset of ``keras.datasets``.

    Args:
        name: of a module of ``keras.datasets``.
        shape: height, width and channels that the model takes.
        classes: class names.

    Raises:
        InvalidData: the images are not here and cannot be downloaded, or the model takes another
            size.
    """
    path = cache_file(name)
    if not path.is_file():
        _download(name, path)
    dataset = npz.read(str(path), shape)
    return Dataset(name, tuple(classes), dataset.train, dataset.test)


def _download(name: str, path: Path) -> None:
    with replacing(path) as temporary:
        command = [sys.executable, "-P", "-c", _DOWNLOAD, name, str(temporary)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S)
            reason = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"no end after {DOWNLOAD_LIMIT_S} s"
        if reason:
            raise InvalidData(
                f"{name} is not on this machine and could not be downloaded ({reason}): "
                "give --data a folder with train/<class>/* and test/<class>/*, or an .npz"
            )
