"""``cifar10``: keras.datasets.cifar10, downloaded once when this machine can."""

import os
import subprocess
import sys
from pathlib import Path

from cct_export.data.dataset import Dataset, ImageShape
from cct_export.data.sources import npz
from cct_export.errors import InvalidData
from cct_export.files import replacing

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SOCKET_TIMEOUT_S = 10
DOWNLOAD_LIMIT_S = 900

# A process of its own: Keras must not be imported where a .tflite is benchmarked, and only a
# process can be stopped when name resolution or a proxy hangs.
_DOWNLOAD = f"""
import socket, sys
socket.setdefaulttimeout({SOCKET_TIMEOUT_S})
import keras, numpy
(a, b), (c, d) = keras.datasets.cifar10.load_data()
numpy.savez(sys.argv[1], x_train=a, y_train=b, x_test=c, y_test=d)
"""


def cache_file() -> Path:
    """Returns where the arrays are kept after the first use (honours XDG_CACHE_HOME)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "cct-export" / "cifar10.npz"


def at_hand() -> bool:
    """Tells whether the arrays have been downloaded before."""
    return cache_file().is_file()


def read(name: str, shape: ImageShape) -> Dataset:
    """Returns CIFAR-10: 50,000 training and 10,000 test images of 32×32×3.

    Raises:
        InvalidData: the images are not here and cannot be downloaded, or the model takes another
            size.
    """
    path = cache_file()
    if not path.is_file():
        _download(path)
    dataset = npz.read(str(path), shape)
    return Dataset(name, CLASSES, dataset.train, dataset.test)


def _download(path: Path) -> None:
    with replacing(path) as temporary:
        command = [sys.executable, "-P", "-c", _DOWNLOAD, str(temporary)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S)
            reason = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"no end after {DOWNLOAD_LIMIT_S} s"
        if reason:
            raise InvalidData(
                f"cifar10 is not on this machine and could not be downloaded ({reason}): "
                "give --data a folder with train/<class>/* and test/<class>/*, or an .npz"
            )
