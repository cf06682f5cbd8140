"""Records as plain JSON types, and back: msgspec checks every field against its annotation."""

import json
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Record = TypeVar("Record")


def to_json(record: object) -> Any:
    """Returns a record, or lists and dictionaries of records, as plain JSON types.

    Paths become text; NaN and infinity, which JSON does not have, become None.

    Example:
        >>> to_json({"sqnr_db": float("inf"), "path": Path("m.tflite")})
        {'sqnr_db': None, 'path': 'm.tflite'}
    """
    return _finite(to_builtins(record))


def to_text(record: object) -> str:
    """Returns ``to_json(record)`` as indented JSON text with a final newline, in ASCII.

    So a path that is no UTF-8 can be written, and nothing in it controls a terminal.
    """
    return json.dumps(to_json(record), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_builtins(record: object) -> Any:
    """Returns a record as Python's built-in types; infinity and NaN stay what they are."""
    return msgspec.to_builtins(record, enc_hook=_encode)


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def from_json(fields: object, kind: type[Record]) -> Record:
    """Returns a record of plain JSON types; keys that it does not have are ignored.

    Args:
        fields: what ``to_json`` returned, or what a file of anyone's holds.
        kind: the dataclass.

    Raises:
        ValueError: a field is missing, or of another type than its annotation.
    """
    return msgspec.convert(fields, kind, dec_hook=_decode)


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r:.80} is no {kind.__name__}")


def parse_json(text: str | bytes) -> Any:
    """Returns the content of a JSON file that anyone may have written.

    Raises:
        ValueError: it is no JSON (NaN and infinity are none), nested too deeply, or has text that
            cannot be encoded.
    """
    try:
        content = text.encode() if isinstance(text, str) else text
        return msgspec.json.decode(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it has text that cannot be encoded") from None
    except msgspec.DecodeError as error:
        position = re.search(r"\(byte (\d+)\)", str(error))
        where = f"is wrong at byte {position[1]}" if position else "ends too early"
        raise ValueError(f"its JSON {where}") from None
