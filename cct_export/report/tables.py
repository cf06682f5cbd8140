"""Results as a Markdown table and as CSV."""

import csv as formats
import io
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from cct_export.records import BenchResult
from cct_export.report.columns import columns
from cct_export.report.rows import Row, rows
from cct_export.report.words import printable

# A spreadsheet takes a cell that starts so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def markdown(results: Sequence[BenchResult]) -> str:
    """Returns a GitHub Markdown table of ``results``, with the failures as they are on the page."""
    found = rows(results)
    shown = columns(found)
    lines = [
        [column.title for column in shown],
        ["---:" if column.key else "---" for column in shown],
        *([_plain(column.text(row)) for column in shown] for row in found),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plain(text: str) -> str:
    """Returns ``text`` such that Markdown shows it as it is, on one line."""
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv(results: Sequence[BenchResult]) -> str:
    """Returns ``results`` as comma-separated values, with a header and full precision.

    Interval bounds are columns of their own (``ratio_low``, ``ratio_high``); what is not known is
    empty. Words that a spreadsheet would run as a formula have an apostrophe before them.
    """
    written = io.StringIO()
    writer = formats.writer(written, lineterminator="\n")
    writer.writerow(_header())
    writer.writerows([_values(row) for row in rows(results)])
    return written.getvalue()


_INTERVALS = ("ratio", "top1")


def _header() -> list[str]:
    names = []
    for field in fields(Row):
        bounds = [f"{field.name}_low", f"{field.name}_high"] if field.name in _INTERVALS else []
        names += [field.name, *bounds]
    return names


def _values(row: Row) -> list[Any]:
    values: list[Any] = []
    for field in fields(Row):
        value = getattr(row, field.name)
        if field.name in _INTERVALS:
            values += [None] * 3 if value is None else list(value)
        else:
            values.append(f"'{value}" if _is_formula(value) else value)
    return values


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_FORMULA)
