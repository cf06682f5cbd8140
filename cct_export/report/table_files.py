"""Tables as files: GitHub Markdown and comma-separated values."""

import csv as csv_format
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from cct_export.bench.statistics import Interval
from cct_export.report.columns import Column, Item
from cct_export.text import one_line

# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def markdown(columns: Sequence[Column[Item]], items: Iterable[Item]) -> str:
    """Returns a GitHub Markdown table with a row per item."""
    lines = [
        [_escaped(column.title) for column in columns],
        ["---" if column.value is None else "---:" for column in columns],
        *([_escaped(column.cell(item)) for column in columns] for item in items),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    """Returns ``text`` such that Markdown shows it literally, on one line."""
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv(kind: type[Any], records: Iterable[Any]) -> str:
    r"""Returns records as comma-separated values with full precision, a line for each.

    The header has the names of the fields. The bounds of an interval are columns of their own
    (``ratio_low``, ``ratio_high``); what is not known is empty. Text that a spreadsheet would run
    as a formula gets an apostrophe before it. Otherwise text is kept as it is, with ``\n``
    at the end of its lines; what no file can hold, such as a byte of a name that is no UTF-8,
    becomes ``?``.

    Args:
        kind: the records' dataclass.
        records: of that kind.
    """
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    writer.writerow(name for field in fields(kind) for name in _names(field.name, field.type))
    for record in records:
        writer.writerow(
            value
            for field in fields(kind)
            for value in _values(getattr(record, field.name), field.type)
        )
    return text.getvalue()


def _is_interval(kind: Any) -> bool:
    return kind in (Interval, Interval | None)


def _names(name: str, kind: Any) -> Iterator[str]:
    yield name
    if _is_interval(kind):
        yield from (f"{name}_low", f"{name}_high")


def _values(value: Any, kind: Any) -> Iterator[object]:
    if _is_interval(kind):
        yield from value or (None, None, None)
    elif isinstance(value, tuple):
        yield _text(" ".join(map(str, value)))
    else:
        yield _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    encodable = value.encode(errors="replace").decode()
    # The csv module puts no quotes around a carriage return, which would begin a row.
    lines = encodable.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{lines}" if value.startswith(_FORMULA) else lines
