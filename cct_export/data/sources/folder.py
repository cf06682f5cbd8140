"""A folder of class folders with PNG or JPEG files."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cct_export.data.dataset import Dataset, Images, ImageShape, Labels, existing
from cct_export.errors import InvalidData

SUFFIXES = (".png", ".jpg", ".jpeg")
TEST_FRACTION = 0.1
SPLIT_SEED = 0

log = logging.getLogger(__name__)


class FolderSplit:
    """Image files with labels; each image is decoded when it is asked for.

    Args:
        paths: image files.
        labels: int64 ``(N,)``.
        shape: height, width, channels of the images to give (3: RGB, 1: grey).
    """

    def __init__(self, paths: Sequence[Path], labels: Labels, shape: ImageShape) -> None:
        self.paths = paths
        self.labels = labels
        self.shape = shape
        self.resize_said = False

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """Returns the images at ``indices``, resized bilinearly where their size differs."""
        result = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in enumerate(indices):
            pixels, size = decode(self.paths[index], self.shape)
            result[row] = pixels
            if size != self.shape[:2] and not self.resize_said:
                self.resize_said = True
                log.info(
                    "%s is %d×%d: images are resized to %d×%d (bilinear)",
                    self.paths[index], size[1], size[0], self.shape[1], self.shape[0],
                )  # fmt: skip
        return result


def decode(path: Path, shape: ImageShape) -> tuple[Images, tuple[int, int]]:
    """Reads an image file, upright as its EXIF data says.

    Returns:
        The pixels as uint8 ``shape``, and the file's own (height, width).

    Raises:
        InvalidData: the file is missing, no readable image, or one of 16 bits per channel.
    """
    height, width, channels = shape
    try:
        if not path.is_file():
            raise FileNotFoundError
        # No other format: some hand the file to a program, as EPS does to Ghostscript.
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode.startswith(("I", "F")):
                raise InvalidData(f"{path} has more than 8 bits per channel: save it with 8 bits")
            upright = ImageOps.exif_transpose(image)
            size = (upright.height, upright.width)
            converted = upright.convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise InvalidData(f"no such image: {path}") from None
    # Pillow raises ValueError and SyntaxError too for a broken PNG.
    except (
        UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError
    ) as error:  # fmt: skip
        raise InvalidData(f"{path} is no readable image: {error}: remove or replace it") from error
    if size != (height, width):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(converted, np.uint8).reshape(shape), size


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
        classes, paths, labels = _scan(root)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(paths))
        cut = max(1, round(len(paths) * TEST_FRACTION))
        if len(paths) < 2:
            raise InvalidData(f"{root}: one image cannot be split into training and test")
        parts = [np.sort(order[cut:]), np.sort(order[:cut])]
        splits = [FolderSplit([paths[i] for i in part], labels[part], shape) for part in parts]
        return Dataset(name, classes, *splits)
    test = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if test is None:
        raise InvalidData(f"{root}: there is train/ but no test/ or val/ beside it")
    classes, paths, labels = _scan(train)
    test_classes, test_paths, test_labels = _scan(test)
    unknown = sorted(set(test_classes) - set(classes))
    if unknown:
        raise InvalidData(f"{test}: class {unknown[0]!r} has no folder in {train}")
    position = np.asarray([classes.index(name) for name in test_classes])
    return Dataset(
        name,
        classes,
        FolderSplit(paths, labels, shape),
        FolderSplit(test_paths, position[test_labels], shape),
    )


def _visible(folder: Path) -> list[Path]:
    """Returns what is in ``folder`` but for what other programs put there."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]


def _scan(root: Path) -> tuple[tuple[str, ...], list[Path], Labels]:
    """Returns class names, image files and labels of the class folders in ``root``."""
    folders = sorted(entry for entry in _visible(root) if entry.is_dir())
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = sorted(
            file for file in _visible(folder) if file.suffix.lower() in SUFFIXES and file.is_file()
        )
        if not files:
            raise InvalidData(f"{folder}: no .png or .jpg in it: fill this class or remove it")
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise InvalidData(
            f"{root}: no images in it: it needs class folders with .png or .jpg files"
        )
    return tuple(folder.name for folder in folders), paths, np.asarray(labels, np.int64)
