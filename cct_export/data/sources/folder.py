"""A folder of class folders with PNG or JPEG files."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cct_export.data.dataset import Dataset, ImageShape, Labels, existing
from cct_export.data.encoded import EncodedSplit, split_in_two
from cct_export.errors import InvalidData

SUFFIXES = (".png", ".jpg", ".jpeg")

log = logging.getLogger(__name__)


class Files:
    """Image files below a folder.

    Names are kept as text: a million of them as ``Path`` would be some 400 MB.

    Args:
        root: the folder.
        names: paths below it.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = str(root)
        self.names = names

    def where(self, item: int) -> str:
        """Returns the file's path."""
        return os.path.join(self.root, self.names[item])  # noqa: PTH118

    def size_bytes(self, item: int) -> int:
        """Returns the file's size."""
        try:
            return Path(self.where(item)).stat().st_size
        except OSError:
            return 0

    def encoded(self, item: int) -> bytes:
        """Returns what is in the file."""
        path = self.where(item)
        try:
            # To make a Path takes a tenth of the time that a thumbnail does.
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                return file.readall()
        except FileNotFoundError:
            raise InvalidData(f"no such image: {path}") from None
        except OSError as error:
            raise InvalidData(
                f"{path} is no readable image: {error.strerror}: remove or replace it"
            ) from error


def read(name: str, shape: ImageShape) -> Dataset:
    """Returns the images below the folder ``name``.

    Args:
        name: a folder with ``train/<class>/*`` and ``test/<class>/*`` (or ``val/``), or one of
            class folders, then split 90/10 by a fixed seed.
        shape: height, width and channels to give.

    Raises:
        InvalidData: no class folder there, or one without images; a test class that training
            lacks.
    """
    root = existing(name)
    train = root / "train"
    if not train.is_dir():
        classes, names, labels = _scan(root)
        return Dataset(name, classes, *split_in_two(Files(root, names), labels, shape, name))
    test = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if test is None:
        raise InvalidData(f"{root}: there is train/ but no test/ or val/ beside it")
    classes, names, labels = _scan(train)
    test_classes, test_names, test_labels = _scan(test)
    unknown = sorted(set(test_classes) - set(classes))
    if unknown:
        raise InvalidData(f"{test}: class {unknown[0]!r} has no folder in {train}")
    position = np.asarray([classes.index(name) for name in test_classes])
    return Dataset(
        name,
        classes,
        EncodedSplit(Files(train, names), np.arange(len(names)), labels, shape),
        EncodedSplit(
            Files(test, test_names), np.arange(len(test_names)), position[test_labels], shape
        ),
    )


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what is in ``folder``, by name, but for what other programs put there."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise InvalidData(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(found, key=lambda entry: entry.name)


def _scan(root: Path) -> tuple[tuple[str, ...], list[str], Labels]:
    """Returns class names, image files and labels of the class folders in ``root``."""
    folders = [entry.name for entry in _visible(root) if entry.is_dir()]
    names: list[str] = []
    labels: list[np.ndarray] = []
    others: list[str] = []
    for label, folder in enumerate(folders):
        before = len(names)
        for file in _visible(root / folder):
            if file.is_file():
                images = file.name.lower().endswith(SUFFIXES)
                (names if images else others).append(f"{folder}/{file.name}")
        if len(names) == before:
            raise InvalidData(
                f"{root / folder}: no .png or .jpg in it: fill this class or remove it"
            )
        labels.append(np.full(len(names) - before, label, np.int64))
    if not names:
        raise InvalidData(
            f"{root}: no images in it: it needs class folders with .png or .jpg files"
        )
    if others:
        log.info("%s: %d files are no .png or .jpg and left out: %s%s", root, len(others),
                 others[0], " …" if len(others) > 1 else "")  # fmt: skip
    return tuple(folders), names, np.concatenate(labels)
