"""Columns of a table, wherever it is shown, and how their numbers are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Generic, TypeVar

from cct_export.bench.statistics import Interval

NONE = "–"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column of a table that has a row per item.

    Attributes:
        title: header of the column.
        cell: text of an item's cell.
        value: number that the cell shows, which rows are sorted by, None where there is none; None
            for a column of text. Numbers are aligned right.
        elided: whether a terminal that is too narrow shows only the beginning of a text.
    """

    title: str
    cell: Callable[[Item], str]
    value: Callable[[Item], float | None] | None = None
    elided: bool = False

    @classmethod
    def number(
        cls, title: str, value: Callable[[Item], float | None], pattern: str = ",d"
    ) -> "Column[Item]":
        """Returns a column of numbers in the format ``pattern``, a dash where there is none."""
        return cls(title, lambda item: number(value(item), pattern), value)

    def sort_key(self, item: Item) -> float | None:
        """Returns the number that the row of ``item`` is sorted by, None if there is none."""
        key = None if self.value is None else self.value(item)
        return None if key is None or not isfinite(key) else float(key)


def number(value: float | None, pattern: str = ",d") -> str:
    """Returns ``value`` in the format ``pattern``, a dash for None."""
    return NONE if value is None else format(value, pattern)


def percentage(interval: Interval | None) -> str:
    """Returns a proportion and its bounds in per cent, ``84.1% (83.4–84.8)``; a dash for None."""
    if interval is None:
        return NONE
    return f"{interval.value:.1%} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def milliseconds(value: float | None) -> str:
    """Returns ``value`` with about four significant digits, a dash for None."""
    if value is None:
        return NONE
    return format(value, ",.3f" if value < 10 else ",.2f" if value < 100 else ",.1f")


def shape(sizes: Sequence[int | None] | None) -> str:
    """Returns a shape as ``1×32×32×3``, ``?`` for an open size; a dash for None."""
    if sizes is None:
        return NONE
    return "×".join("?" if size is None else str(size) for size in sizes) or "scalar"
