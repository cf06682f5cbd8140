"""Results as a Markdown table and as CSV."""

import csv as csv_format
import io
import re
from collections.abc import Sequence
from dataclasses import fields

from cct_export.records import BenchResult
from cct_export.report.rows import Row, columns, rows
from cct_export.text import one_line

# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Fields of a row that are intervals: three columns each.
_INTERVALS = ("ratio", "top1")


def markdown(results: Sequence[BenchResult]) -> str:
    """Returns a GitHub Markdown table of ``results``, with the columns of the HTML page."""
    table = rows(results)
    shown = columns(table)
    lines = [
        [column.title for column in shown],
        ["---" if column.value is None else "---:" for column in shown],
        *([_escaped(column.cell(row)) for column in shown] for row in table),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    """Returns ``text`` such that Markdown shows it literally, on one line."""
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def csv(results: Sequence[BenchResult]) -> str:
    """Returns ``results`` as comma-separated values, with a header and full precision.

    The bounds of an interval are columns of their own (``ratio_low``, ``ratio_high``); what is not
    known is empty. Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    names = [field.name for field in fields(Row)]
    header = []
    for name in names:
        header += [name, f"{name}_low", f"{name}_high"] if name in _INTERVALS else [name]
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows(results):
        line: list[object] = []
        for name in names:
            value = getattr(row, name)
            if name in _INTERVALS:
                line += value or (None, None, None)
            else:
                line.append(f"'{value}" if _is_formula(value) else value)
        writer.writerow(line)
    return text.getvalue()


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_FORMULA)
