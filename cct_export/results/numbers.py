"""Numbers as JSON has them."""

import math
from typing import Any


def json_number(value: float) -> float | None:
    """Returns ``value``, or None for what JSON has no word for: infinity and NaN."""
    return value if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Returns what lists and dictionaries hold, each number as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return json_number(value) if isinstance(value, float) else value
