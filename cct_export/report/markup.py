"""Pieces of HTML; every string that goes in is escaped here."""

import html
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from cct_export.report.charts.chart import Chart
from cct_export.report.columns import NONE, Column
from cct_export.report.rows import Row
from cct_export.report.words import printable

# Where a table of facts stops looking into what is in what.
_DEEPEST = 3


def text(value: object) -> str:
    """Returns ``value`` as text for an element or a quoted attribute."""
    return html.escape(printable(value), quote=True)


def section(title: str, *parts: str) -> str:
    """Returns a section with a heading, nothing if there is nothing in it."""
    inner = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{inner}\n</section>" if inner else ""


def paragraph(said: str, kind: str = "note") -> str:
    """Returns a paragraph, nothing for no words."""
    return f'<p class="{kind}">{text(said)}</p>' if said else ""


def items(said: Sequence[str], kind: str) -> str:
    """Returns a list, nothing for none."""
    if not said:
        return ""
    return f'<ul class="{kind}">{"".join(f"<li>{text(one)}</li>" for one in said)}</ul>'


def sortable(shown: Sequence[Column], found: Sequence[Row], caption: str) -> str:
    """Returns the table of results, which the script of the page sorts."""
    head = "".join(
        f'<th scope="col" aria-sort="none"{_class("number" if column.key else "")}>'
        f'<button type="button">{text(column.title)}</button></th>'
        for column in shown
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(column, row, first=column is shown[0]) for column in shown) + "</tr>"
        for row in found
    )
    return _scrolling(
        f'<table class="sortable">\n<caption>{text(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>",
        caption,
    )


def _cell(column: Column, row: Row, first: bool) -> str:
    said = column.text(row)
    if first:
        return f'<th scope="row"><span class="place">{row.number}</span> {text(said)}</th>'
    key = None if column.key is None else column.key(row)
    kinds = ["number"] if column.key else []
    if said in ("FAILED", row.refused):
        kinds = ["bad"]
    data = "" if key is None or not isfinite(key) else f' data-value="{float(key)!r}"'
    return f"<td{_class(*kinds)}{data}>{text(said)}</td>"


def _class(*names: str) -> str:
    given = " ".join(name for name in names if name)
    return f' class="{given}"' if given else ""


def _scrolling(inner: str, label: str) -> str:
    """Returns ``inner`` in a box that scrolls by itself, with a finger or the keyboard."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">{inner}</div>'
    )


def plain(header: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    """Returns a table of text."""
    kinds = [
        _class("number" if all(cell == NONE or cell[:1].isdigit() for cell in column) else "")
        for column in zip(*body, strict=True)
    ] or [""] * len(header)
    head = "".join(
        f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(header, kinds, strict=True)
    )
    cells = [
        [f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(line, kinds, strict=True)]
        for line in body
    ]
    lines = "\n".join(f"<tr>{''.join(line)}</tr>" for line in cells)
    return _scrolling(
        f"<table>\n<caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody>\n</table>",
        caption,
    )


def facts(found: Mapping[str, Any], caption: str) -> str:
    """Returns a table of names and values, nothing for none.

    Args:
        found: anything that JSON has; what is in a mapping gets a line each.
        caption: of the table.
    """
    lines = "\n".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>'
        for name, value in _flat(found)
    )
    if not lines:
        return ""
    return _scrolling(
        f'<table class="facts">\n<caption>{text(caption)}</caption>\n'
        f"<tbody>\n{lines}\n</tbody>\n</table>",
        caption,
    )


def _flat(found: Mapping[str, Any], prefix: str = "", depth: int = 1) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in found.items():
        title = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping) and depth < _DEEPEST:
            lines += _flat(value, f"{title}: ", depth + 1)
        else:
            lines.append((title, _said(value)))
    return lines


def _said(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_said(one) for one in value) or "none"
    return str(value)


def chart(drawn: Chart, index: int) -> str:
    """Returns the place of a chart, and its figures as a table.

    Args:
        drawn: the chart.
        index: of the chart among those of the page, by which the script finds its data.
    """
    table = plain(drawn.header, drawn.body, drawn.title) if drawn.header else ""
    details = f"<details><summary>Figures</summary>{table}</details>" if table else ""
    return (
        f"<figure>\n<figcaption><h3>{text(drawn.title)}</h3></figcaption>\n"
        f'<div class="chart" role="img" aria-label="{text(drawn.text)}" data-chart="{index}" '
        f'style="height:{drawn.height}px"></div>\n'
        f"{paragraph(drawn.note)}{details}\n</figure>"
    )
