"""Image files as users name them: files, folders and glob patterns."""

import glob
from collections.abc import Sequence
from pathlib import Path

from cct_export.data.decoding import SUFFIXES
from cct_export.data.folder import images_below
from cct_export.errors import InvalidRequest
from cct_export.files import check_file, expand_user
from cct_export.model.presets import MODELS
from cct_export.specs import SAVED_MODEL_FILE
from cct_export.training.run import RunDirectory


def names_images(argument: str) -> bool:
    """Tells whether an argument names images; if not, it can only name a model.

    Nothing is opened, and no engine is loaded.

    Args:
        argument: what a user wrote where either may stand. Images are a file that ends in one of
            ``SUFFIXES``, a glob pattern, and a folder. A folder that holds a SavedModel or
            a training run is a model, whatever else is in it, and so is the name of a preset.
    """
    if argument in MODELS:
        return False
    path = expand_user(argument)
    if path.is_dir():
        files = path / SAVED_MODEL_FILE, RunDirectory(path).record_file
        return not any(file.is_file() for file in files)
    return argument.lower().endswith(SUFFIXES) or _is_pattern(path)


def find_images(names: Sequence[str | Path]) -> list[Path]:
    """Returns the image files that names stand for.

    Args:
        names: files; folders, which stand for all files below them that end in one of
            ``SUFFIXES``; and glob patterns, which stand for those among the files that match, where
            ``**`` matches any number of folders. Hidden files are left out of both.

    Returns:
        The files in the order of the names; those of a folder or pattern by path.

    Raises:
        InvalidRequest: no name was given, or one stands for no file.
        InvalidData: a folder cannot be read.
    """
    if not names:
        raise InvalidRequest("no image to predict: name one or more files")
    return [file for name in names for file in _files(expand_user(name))]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files, problem = images_below(path), "no image (.png, .jpg, …) in the folder"
    elif _is_pattern(path):
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        files = [file for file in matches if file.is_file() and _has_image_suffix(file)]
        problem = "no image (.png, .jpg, …) matches"
    else:
        check_file(path, "image")
        return [path]
    if not files:
        raise InvalidRequest(f"{problem} {path}")
    return files


def _is_pattern(path: Path) -> bool:
    """Returns whether a name is a glob pattern, and not a file with brackets in its name."""
    return glob.has_magic(str(path)) and not path.exists()


def _has_image_suffix(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)
