"""Horizontal bars with their names above them: peak memory, and time by operator."""

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple
from xml.etree.ElementTree import Element

from cct_export.records import OperatorProfile
from cct_export.report.charts.chart import MUTED, Chart, series_colour, shortened
from cct_export.report.charts.svg import drawing, element, percent, tooltip
from cct_export.report.columns import milliseconds, number
from cct_export.report.rows import Row
from cct_export.text import plural

# Pixels from one bar to the next, from there to its text, and of the bar.
_STEP, _BASELINE, _THICKNESS = 38, 16, 10
_MAX_NAME_LENGTH = 34
# Nobody reads more bars; the table below them has all operators.
_MAX_BARS = 12


class Bar(NamedTuple):
    """A bar.

    Attributes:
        name: of what was measured.
        value: length of the bar.
        text: the value in words.
        group: bars of one group have one colour; empty for a bar in none.
    """

    name: str
    value: float
    text: str
    group: str


def memory(rows: Sequence[Row], names: Sequence[str]) -> Chart | None:
    """Returns the peak memory of each row, None if it is not known of any."""
    peaks = [
        (name, row.peak_megabytes)
        for row, name in zip(rows, names, strict=True)
        if row.peak_megabytes is not None
    ]
    if not peaks:
        return None
    name, largest = max(peaks, key=lambda peak: peak[1])
    return Chart(
        title="Peak memory",
        text=f"Peak memory of {plural(len(peaks), 'result')}; the largest is {largest:,.0f} MB: "
        f"{name}.",
        drawing=_drawing(
            [Bar(name, peak, f"{peak:,.0f} MB", "peak") for name, peak in peaks], ["peak"]
        ),
        header=("result", "peak MB"),
        body=tuple((name, f"{peak:,.1f}") for name, peak in peaks),
        note="Peak resident memory of a process that did nothing else.",
    )


def operators(name: str, profile: OperatorProfile) -> Chart:
    """Returns the time of each operator, the slowest on top.

    Args:
        name: of the result.
        profile: with at least one operator.
    """
    ordered = sorted(profile.operators, key=lambda operator: -operator.ms)
    total = sum(operator.ms for operator in ordered)
    bars = [
        Bar(
            f"{operator.kind} {operator.name}",
            operator.ms,
            _share(operator.ms, total),
            operator.where or "engine",
        )
        for operator in ordered[:_MAX_BARS]
    ]
    others = [operator.ms for operator in ordered[_MAX_BARS:]]
    if others:
        bars.append(Bar(plural(len(others), "other"), sum(others), _share(sum(others), total), ""))
    groups = list(dict.fromkeys(bar.group for bar in bars if bar.group))
    legend = tuple((group, series_colour(index)) for index, group in enumerate(groups))
    slowest = ordered[0]
    notes = [f"{milliseconds(total)} ms in all, {plural(profile.runs, 'run')}."]
    if profile.derived:
        notes.append("Derived: differences between prefixes of the graph, not times of the engine.")
    if profile.note:
        notes.append(profile.note)
    return Chart(
        title=f"{name} (derived)" if profile.derived else name,
        text=f"Time of {plural(len(ordered), 'operator')} of {name}; the slowest is "
        f"{slowest.kind} {slowest.name}, {_share(slowest.ms, total)}.",
        drawing=_drawing(bars, groups),
        legend=legend if len(groups) > 1 else (),
        header=("operator", "name", "ms", "where"),
        body=tuple(
            (operator.kind, operator.name, number(operator.ms, ".4f"), operator.where)
            for operator in ordered
        ),
        note=" ".join(notes),
    )


def _share(ms: float, total: float) -> str:
    return f"{ms:,.3f} ms" + (f" · {ms / total:.0%}" if total > 0 else "")


def _drawing(bars: Sequence[Bar], groups: Sequence[str]) -> str:
    """Returns the drawing; names beside the bars would leave no room for bars on a phone.

    Args:
        bars: from the top down, at least one.
        groups: in the order of their colours.
    """
    longest = max([bar.value for bar in bars if isfinite(bar.value)], default=0.0)
    drawn = []
    for index, bar in enumerate(bars):
        colour = series_colour(groups.index(bar.group)) if bar.group else MUTED
        drawn.append(_bar(bar, bar.value / max(longest, 1e-9), colour, index * _STEP))
    return drawing(*drawn, height=_STEP * len(bars), layout="bars")


def _bar(bar: Bar, length: float, colour: str, top: float) -> Element:
    # The value first: where a phone cuts the line, it cuts the name.
    label = element("text", element("tspan", class_="value", text=bar.text), y=top + _BASELINE)
    label[0].tail = f"  {shortened(bar.name, _MAX_NAME_LENGTH)}"
    return element(
        "g",
        tooltip(f"{bar.text} {shortened(bar.name)}"),
        label,
        # A derived time may be a little below zero.
        element(
            "rect",
            y=top + _BASELINE + 6,
            width=percent(max(length, 0.0)),
            height=_THICKNESS,
            fill=colour,
        ),
    )
