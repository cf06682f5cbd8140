"""The value of ``--labels``: names of classes, or a file with them."""

import json
from pathlib import Path

from cct_export.errors import InvalidData
from cct_export.files import check_file, expand_user, reason


def read_labels(text: str) -> tuple[str, ...]:
    """Returns the names of classes in the order of the outputs.

    Args:
        text: a text file with a name in each line, a file with a JSON list of names, or names
            separated by commas.

    Raises:
        InvalidRequest: there is no such file.
        InvalidData: it holds no names.
    """
    path = expand_user(text)
    if "," in text and not path.exists():
        return tuple(name.strip() for name in text.split(","))
    check_file(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
        is_json = path.suffix.lower() == ".json" or content.lstrip().startswith("[")
        names = json.loads(content) if is_json else content.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidData(f"{path} holds no labels: {reason(error, 'it is no text')}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidData(f"{path} holds no labels: its JSON is no list of names")
    if is_json:
        return _checked(path, [name.strip() for name in names])
    return _checked(path, [name.strip() for name in names if name.strip()])


def _checked(path: Path, names: list[str]) -> tuple[str, ...]:
    if not names:
        raise InvalidData(f"{path} holds no labels: write the name of a class in each line")
    return tuple(names)
