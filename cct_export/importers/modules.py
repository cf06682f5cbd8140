"""Python files of the user's, run to know the layers and functions that a model is made of."""

import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from cct_export.errors import InvalidModel
from cct_export.text import one_line

_MAX_REASON = 200


def objects_of(paths: Iterable[Path]) -> dict[str, Any]:
    """Runs Python files and returns what is in them, by the names that a model's file may use.

    Args:
        paths: Python files, which may import what is beside them, as with ``python FILE.py``.

    Returns:
        Classes and functions by their own names, and by those that they are registered under.

    Raises:
        InvalidModel: a file cannot be run.
    """
    objects: dict[str, Any] = {}
    for path in paths:
        for name, value in vars(_run(path)).items():
            if inspect.isclass(value) or inspect.isfunction(value):
                objects[name] = value
                objects[value.__name__] = value
                objects[keras.saving.get_registered_name(value)] = value
    return objects


def _run(path: Path) -> ModuleType:
    name = f"cct_export_import_{path.stem}"  # not that of a module of Python's
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    # A program may end in any way, also by sys.exit.
    except (Exception, SystemExit) as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:_MAX_REASON]
        raise InvalidModel(f"{path} cannot be run, as --import has it: {reason}") from error
    finally:
        sys.path.pop(0)
    return module
