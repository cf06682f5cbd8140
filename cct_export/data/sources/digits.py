"""``digits``: scikit-learn's handwritten digits, offline, for quick tests and demos."""

import importlib.util

import numpy as np

from cct_export.data.dataset import ArraySplit, Dataset, ImageShape
from cct_export.errors import InvalidData, MissingDependency

NATIVE: ImageShape = (32, 32, 3)


def at_hand() -> bool:
    """Tells whether scikit-learn, which brings them, is installed."""
    return importlib.util.find_spec("sklearn") is not None


def read(name: str, shape: ImageShape) -> Dataset:
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
    if shape != NATIVE:
        raise InvalidData(
            f"digits are {NATIVE}, the model takes {shape}: train one with --image-size 32"
        )
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pixels = pixels.repeat(4, axis=1).repeat(4, axis=2)[..., np.newaxis].repeat(3, axis=3)
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, digits.target.astype(np.int64), test_size=0.2, random_state=0,
        stratify=digits.target,
    )  # fmt: skip
    return Dataset(
        name, tuple("0123456789"), ArraySplit(x_train, y_train), ArraySplit(x_test, y_test)
    )
