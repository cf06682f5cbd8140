"""Numbers as JSON has them."""

import math


def json_number(value: float) -> float | None:
    """Returns ``value``, or None for what JSON has no word for: infinity and NaN."""
    return value if math.isfinite(value) else None
