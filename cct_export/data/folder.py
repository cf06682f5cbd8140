"""Folders with image files: of class folders, or of any."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cct_export.data.dataset import Dataset, ImageShape, Labels
from cct_export.data.decoding import SUFFIXES
from cct_export.data.encoded import EncodedSplit, train_test_split
from cct_export.errors import InvalidData
from cct_export.specs import DEFAULT_RESIZE, Resize
from cct_export.text import plural

# What a folder of images beside train/ may be called, the first is used; Roboflow writes valid/.
_TEST_FOLDERS = ("test", "val", "valid", "validation")

log = logging.getLogger(__name__)


class ImageFiles:
    """Image files below a folder, an ``encoded.Store``.

    Names are kept as text: a million ``Path`` objects would take some 400 MB.

    Args:
        root: the folder.
        names: paths relative to it.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = str(root)
        self.names = names

    def name(self, item: int) -> str:
        """Returns the file's path."""
        return os.path.join(self.root, self.names[item])  # noqa: PTH118

    def size_bytes(self, item: int) -> int:
        """Returns the file's size."""
        try:
            return Path(self.name(item)).stat().st_size
        except OSError:
            return 0

    def read(self, item: int) -> bytes:
        """Returns the file's content."""
        path = self.name(item)
        try:
            # Making a Path takes a tenth of the time that reading a thumbnail does.
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                return file.readall()
        except FileNotFoundError:
            raise InvalidData(f"no such image: {path}") from None
        except OSError as error:
            raise InvalidData(
                f"{path} is not a readable image: {error.strerror}: remove or replace it"
            ) from error


def read(root: Path, shape: ImageShape, resize: Resize = DEFAULT_RESIZE) -> Dataset:
    """Returns the images below the folder ``root``.

    Args:
        root: a folder with ``train/<class>/*`` and ``test/<class>/*`` (or ``val/``, ``valid/``), or
            one of class folders, which is split 90/10 by a fixed seed.
        shape: height, width and channels of the decoded images.
        resize: how images of another size are resized.

    Raises:
        InvalidData: no class folders, one without images, or a test class missing from training.
    """
    train = root / "train"
    if not train.is_dir():
        _check_no_splits(root)
        classes, names, labels = _scan(root)
        splits = train_test_split(ImageFiles(root, names), labels, shape, str(root), resize)
        return Dataset(str(root), classes, *splits)
    others = [root / part for part in _TEST_FOLDERS if (root / part).is_dir()]
    if not others:
        raise InvalidData(f"{root}: there is train/ but no test/, val/ or valid/ beside it")
    test, *unused = others
    for folder in unused:
        log.info("%s is not used: the images of %s are tested on", folder, test)
    classes, names, labels = _scan(train)
    test_classes, test_names, test_labels = _scan(test)
    unknown = sorted(set(test_classes) - set(classes))
    if unknown:
        raise InvalidData(f"{test}: class {unknown[0]!r} has no folder in {train}")
    label_of_test_class = np.asarray([classes.index(name) for name in test_classes])
    return Dataset(
        str(root),
        classes,
        EncodedSplit(ImageFiles(train, names), np.arange(len(names)), labels, shape, resize),
        EncodedSplit(
            ImageFiles(test, test_names),
            np.arange(len(test_names)),
            label_of_test_class[test_labels],
            shape,
            resize,
        ),
    )


def _check_no_splits(root: Path) -> None:
    """Raises ``InvalidData`` if the folders in ``root`` are splits, and not classes."""
    folders = [entry.name for entry in _visible_entries(root) if entry.is_dir()]
    if folders and {name.lower() for name in folders} <= {*_TEST_FOLDERS, "train", "training"}:
        found = " and ".join(f"{name}/" for name in folders)
        raise InvalidData(
            f"{root}: there is {found} but no train/: name the folder with the training images so"
        )


def images_below(folder: Path) -> list[Path]:
    """Returns the image files in a folder and all folders below it, by path.

    Hidden ones are left out, and links to folders are not followed: they may lead in a circle.

    Raises:
        InvalidData: a folder cannot be read.
    """
    images: list[Path] = []
    for entry in _visible_entries(folder):
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            images += images_below(path)
        elif entry.is_file() and entry.name.lower().endswith(SUFFIXES):
            images.append(path)
    return images


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns the entries of ``folder`` by name.

    Without hidden ones, those macOS adds, and links that lead nowhere or in a circle.
    """
    try:
        with os.scandir(folder) as entries:
            visible = [
                entry
                for entry in entries
                if not entry.name.startswith((".", "__MACOSX"))
                and not (entry.is_symlink() and not Path(entry).exists())
            ]
    except OSError as error:
        raise InvalidData(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(visible, key=lambda entry: entry.name)


def _scan(root: Path) -> tuple[tuple[str, ...], list[str], Labels]:
    """Returns class names, image files and labels of the class folders in ``root``."""
    classes = [entry.name for entry in _visible_entries(root) if entry.is_dir()]
    names: list[str] = []
    labels: list[np.ndarray] = []
    ignored: list[str] = []
    for label, folder in enumerate(classes):
        before = len(names)
        for file in _visible_entries(root / folder):
            if file.is_file():
                is_image = file.name.lower().endswith(SUFFIXES)
                (names if is_image else ignored).append(f"{folder}/{file.name}")
        if len(names) == before:
            raise InvalidData(
                f"{root / folder}: no image in it (.png, .jpg, …): fill this class or remove it"
            )
        labels.append(np.full(len(names) - before, label, np.int64))
    if not names:
        outside = sum(entry.name.lower().endswith(SUFFIXES) for entry in _visible_entries(root))
        what = (
            f"{plural(outside, 'image')} outside of class folders" if outside else "no images in it"
        )
        raise InvalidData(
            f"{root}: {what}: it needs class folders with image files (.png, .jpg, …)"
        )
    if ignored:
        log.info("%s: left out %d files that are no images: %s%s", root, len(ignored),
                 ignored[0], " …" if len(ignored) > 1 else "")  # fmt: skip
    return tuple(classes), names, np.concatenate(labels)
