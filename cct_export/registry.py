"""Names in a room: each is a module of that room, imported only when it is asked for.

A name that Python keeps for itself is a module with an underscore behind it: ``import_``.
"""

import importlib
import keyword
import pkgutil
from types import ModuleType


def names(room: str) -> list[str]:
    """Returns the words a user may type for ``room``, such as ``["digits", "folder"]``.

    Args:
        room: dotted name of a package, such as ``cct_export.data``.
    """
    package = importlib.import_module(room)
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.rstrip("_").replace("_", "-") for name in found)


def load(room: str, name: str) -> ModuleType:
    """Imports the module that stands for ``name``.

    Raises:
        KeyError: there is no such name in the room.
    """
    if name not in names(room):
        raise KeyError(name)
    module = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
    return importlib.import_module(f"{room}.{module}")
