"""Records as plain JSON types, and back."""

import math
from dataclasses import fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def json_number(value: float) -> float | None:
    """Returns ``value``, or None for what JSON has no word for: infinity and NaN."""
    return value if math.isfinite(value) else None


def record_of(kind: type[Record], found: dict[str, Any]) -> Record:
    """Returns a frozen record of what ``dataclasses.asdict`` and JSON made of one.

    Args:
        kind: the dataclass.
        found: its fields; keys that it does not have are left out.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _tuples(value) for name, value in found.items() if name in names})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Returns what lists and dictionaries hold, each number as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return json_number(value) if isinstance(value, float) else value
