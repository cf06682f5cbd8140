"""An ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``, and optionally ``classes``."""

import zipfile
import zlib
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
from cct_export.files import reason

KEYS = ("x_train", "y_train", "x_test", "y_test")


def read(path: Path, shape: ImageShape) -> Dataset:
    """Returns the dataset in a file; pickled objects in it are never loaded.

    Args:
        path: the file. ``x_*`` are uint8 ``(N, *shape)``, ``y_*`` integers ``(N,)`` or
            ``(N, 1)``.
        shape: height, width and channels of the model's input.

    Raises:
        InvalidData: not such an .npz; the message names file and key.
    """
    arrays = _arrays(path)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise InvalidData(f"{path}: no {missing[0]} in it: it needs {', '.join(KEYS)}")
    names = arrays.get("classes", np.empty(0))
    if names.ndim != 1:
        raise InvalidData(
            f"{path} classes: names of shape (classes,) are needed, not {names.shape}"
        )
    classes = tuple(str(name) for name in names)
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


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the file that this module uses."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InvalidData(f"{path} cannot be read as .npz: it is an .npy, a single array")
        with archive:
            arrays = {key: archive[key] for key in (*KEYS, "classes") if key in archive}
    # zipfile raises all of these, for damaged, encrypted and unusual members.
    except (
        ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError
    ) as error:  # fmt: skip
        why = reason(error, "it is no .npz file, damaged, or holds Python objects")
        raise InvalidData(f"{path} cannot be read as .npz: {why}") from error
    for key, array in arrays.items():
        # numpy returns the bytes of a member that is not an array.
        if not isinstance(array, np.ndarray):
            raise InvalidData(f"{path} cannot be read as .npz: {key} is not an array")
    return arrays
