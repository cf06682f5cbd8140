"""Data sets known by name: CIFAR-10, CIFAR-100, and scikit-learn's handwritten digits."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cct_export.data import npz
from cct_export.data.dataset import ArraySplit, Dataset, ImageShape
from cct_export.errors import InvalidData, MissingDependency, OutputError
from cct_export.files import cache_folder, check_writable, locked, make_folder, replacing

SOCKET_TIMEOUT_S = 10
DOWNLOAD_LIMIT_S = 900
DIGITS_SHAPE: ImageShape = (32, 32, 3)
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# Labels are numbered in alphabetical order.
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

# A separate process: Keras must not be imported where a .tflite is benchmarked, and only a process
# can be stopped when name resolution or a proxy hangs.
_DOWNLOAD = f"""
import socket, sys
socket.setdefaulttimeout({SOCKET_TIMEOUT_S})
import keras, numpy
(a, b), (c, d) = getattr(keras.datasets, sys.argv[1]).load_data()
numpy.savez(sys.argv[2], x_train=a, y_train=b, x_test=c, y_test=d)
"""


@dataclass(frozen=True)
class NamedDataset:
    """How a data set with a name is read.

    Attributes:
        is_available: tells whether its images are on this machine.
        read: returns it with images of a shape.
        downloaded: whether that downloads images that are not on this machine.
    """

    is_available: Callable[[], bool]
    read: Callable[[ImageShape], Dataset]
    downloaded: bool = True


def cache_file(name: str) -> Path:
    """Returns where the arrays of ``name`` are kept after their download (XDG_CACHE_HOME)."""
    return cache_folder() / f"{name}.npz"


def _is_cached(name: str) -> bool:
    return cache_file(name).is_file()


def _read_cifar(name: str, classes: tuple[str, ...], shape: ImageShape) -> Dataset:
    """Returns ``keras.datasets.<name>``: 50,000 training and 10,000 test images of 32×32×3.

    Raises:
        InvalidData: they are neither in the cache nor can they be downloaded, or the model takes
            another size.
    """
    path = cache_file(name)
    if not path.is_file():
        _fill_cache(name, path)
    dataset = npz.read(path, shape)
    return Dataset(name, classes, dataset.train, dataset.test)


def _fill_cache(name: str, path: Path) -> None:
    """Downloads a data set; of several processes one downloads, and the others wait for it.

    Keras' own cache, which the download goes through, is damaged by two at a time.
    """
    try:
        if path.parts[0] == "~":  # expand_user leaves it
            raise OutputError(f"cannot write {path}: this user has no home folder")
        check_writable(path)
        make_folder(path.parent)
        with locked(path.parent, wait_s=DOWNLOAD_LIMIT_S):
            if not path.is_file():
                _download(name, path)
    except (OSError, OutputError) as error:
        why = f"cannot write {path}: {error.strerror}" if isinstance(error, OSError) else error
        raise OutputError(f"{why}; XDG_CACHE_HOME names another folder for caches") from error


def _download(name: str, path: Path) -> None:
    with replacing(path) as temporary:
        command = [sys.executable, "-P", "-c", _DOWNLOAD, name, str(temporary)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S)
            reason = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"not finished after {DOWNLOAD_LIMIT_S} s"
        if reason:
            raise InvalidData(
                f"{name} is not on this machine and could not be downloaded ({reason}): "
                "give --data a folder with train/<class>/* and test/<class>/*, or an .npz"
            )


def _read_digits(shape: ImageShape) -> Dataset:
    """Returns the 1,797 digits, 8×8 enlarged to 32×32×3 by repetition, split 80/20 by a fixed seed.

    Raises:
        InvalidData: ``shape`` is not (32, 32, 3).
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise MissingDependency.of("scikit-learn", "data") from None
    if shape != DIGITS_SHAPE:
        raise InvalidData(
            f"digits are {DIGITS_SHAPE}, the model takes {shape}: train one with --image-size 32"
        )
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pixels = pixels.repeat(4, axis=1).repeat(4, axis=2)[..., np.newaxis].repeat(3, axis=3)
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, digits.target.astype(np.int64), test_size=0.2, random_state=0,
        stratify=digits.target,
    )  # fmt: skip
    train, test = ArraySplit(x_train, y_train), ArraySplit(x_test, y_test)
    return Dataset("digits", tuple("0123456789"), train, test)


def _has_scikit_learn() -> bool:
    return importlib.util.find_spec("sklearn") is not None


NAMED = {
    "cifar10": NamedDataset(
        partial(_is_cached, "cifar10"), partial(_read_cifar, "cifar10", CIFAR10_CLASSES)
    ),
    "cifar100": NamedDataset(
        partial(_is_cached, "cifar100"), partial(_read_cifar, "cifar100", CIFAR100_CLASSES)
    ),
    "digits": NamedDataset(_has_scikit_learn, _read_digits, downloaded=False),
}
