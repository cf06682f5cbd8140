"""An ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``, and optionally ``classes``."""

from pathlib import Path

import numpy as np

from cct_export.data.dataset import (
    ArraySplit,
    Dataset,
    ImageShape,
    checked_labels,
    checked_pixels,
)
from cct_export.errors import InvalidData
from cct_export.untrusted import read_npz, refusing

KEYS = ("x_train", "y_train", "x_test", "y_test")
_NO_NPZ = "it is no .npz file (an .npy is a single array), damaged, or holds Python objects"


def read(path: Path, shape: ImageShape) -> Dataset:
    """Returns the dataset in a file; pickled objects in it are never loaded.

    Args:
        path: the file. ``x_*`` are uint8 ``(N, *shape)``, ``y_*`` integers ``(N,)`` or
            ``(N, 1)``.
        shape: height, width and channels of the model's input.

    Raises:
        InvalidData: not such an .npz; the message names file and key.
    """
    with refusing(InvalidData, f"{path} cannot be read as .npz", otherwise=_NO_NPZ):
        arrays = read_npz(path, (*KEYS, "classes"))
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise InvalidData(f"{path}: no {missing[0]} in it: it needs {', '.join(KEYS)}")
    classes = _class_names(arrays.get("classes", np.empty(0, np.str_)), f"{path} classes")
    splits = []
    for part in ("train", "test"):
        pixels = checked_pixels(arrays[f"x_{part}"], shape, f"{path} x_{part}")
        labels = checked_labels(
            arrays[f"y_{part}"], len(pixels), len(classes) or None, f"{path} y_{part}"
        )
        splits.append(ArraySplit(pixels, labels))
    if not classes:
        count = 1 + max(int(split.labels.max()) for split in splits)
        classes = tuple(str(index) for index in range(count))
    return Dataset(str(path), classes, *splits)


def _class_names(names: np.ndarray, where: str) -> tuple[str, ...]:
    """Returns the names in an array of text or of whole numbers; raises ``InvalidData``."""
    if names.ndim != 1 or names.dtype.kind not in "Uiu":
        raise InvalidData(
            f"{where}: names as text of shape (classes,) are needed, not {names.dtype} "
            f"{names.shape}"
        )
    # An element may be no character at all.
    with refusing(InvalidData, f"{where} cannot be read", otherwise="it is no text"):
        return tuple(str(name) for name in names)
