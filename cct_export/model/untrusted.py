"""What a file of weights says of itself, checked before memory is taken for it."""

import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras

from cct_export.errors import InvalidModel

# Weights hardly shrink, and are written as they are: nothing honest packs them to a sixteenth.
_PACKED = 16
_ALWAYS_ALLOWED = 64 << 20


def check_declared(declared: int, path: Path) -> None:
    """Refuses a file that would become far larger in memory than it is.

    Args:
        declared: bytes that its contents would take by what it says of them.
        path: the file, or the folder that holds it.

    Raises:
        InvalidModel: it claims sixteen times its size, and more than 64 MiB.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    if declared > _ALWAYS_ALLOWED + _PACKED * size:
        raise InvalidModel(
            f"{path} is refused: it is {size:,} bytes and claims to hold {declared:,}"
        )


def check_archive(path: Path) -> None:
    """Refuses a zip archive that would unpack to far more than it is.

    Raises:
        InvalidModel: it would, or its directory cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidModel(f"{path} is not a readable archive: {error}") from error
    check_declared(declared, path)


def check_config(config: Any, path: Path) -> None:
    """Refuses a model of far more weights than the file can hold: Keras makes them before it reads.

    Keras itself builds the model, in a scope in which variables get a shape and no memory. The
    numbers in the configuration are looked at before: a few layers make arrays all the same.

    Args:
        config: content of a ``.keras`` file's ``config.json``.
        path: the file.

    Raises:
        InvalidModel: it claims too much.
        Exception: whatever Keras and its layers raise where it is no model, or no safe one.
    """
    check_declared(max(_sizes(config), default=0), path)
    # What waits there for memory, and the counters of names, belong to the thread and end with it.
    with ThreadPoolExecutor(1) as thread:
        declared = thread.submit(_declared, config).result()
    check_declared(declared, path)


def _sizes(config: Any) -> Iterator[int]:
    """Yields the whole numbers in a configuration, and what shapes multiply to.

    Seeds and what identifies objects are no sizes.
    """
    if isinstance(config, int):
        yield config
    elif isinstance(config, list):
        for one in config:
            yield from _sizes(one)
    elif isinstance(config, dict):
        for name, value in config.items():
            if "shape" in name and isinstance(value, list):
                yield math.prod(one for one in value if isinstance(one, int))
            if "seed" not in name and name != "shared_object_id":
                yield from _sizes(value)


def _declared(config: Any) -> int:
    """Returns the bytes of a model's weights as float32."""
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(
            config | {"compile_config": None}, safe_mode=True
        )
        numbers: int = sum(math.prod(variable.shape) for variable in model.variables)
    return 4 * numbers
