"""Horizontal bars with their names above them: peak memory, and time by operator."""

from collections.abc import Sequence
from typing import NamedTuple

from cct_export.records import OperatorProfile
from cct_export.report.charts.chart import INK, MUTED, Chart, figure, literal, series_colour
from cct_export.report.columns import milliseconds, number
from cct_export.report.rows import Row
from cct_export.specs import JSONObject

_BAR_HEIGHT, _LEGEND_HEIGHT = 40, 28
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
    bars, height = _bars([Bar(name, peak, f"{peak:,.0f} MB", "peak") for name, peak in peaks])
    name, largest = max(peaks, key=lambda peak: peak[1])
    return Chart(
        title="Peak memory",
        text=f"Peak memory of {len(peaks)} results; the largest is {largest:,.0f} MB: {name}.",
        figure=bars,
        height=height,
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
    drawn = [
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
        drawn.append(Bar(f"{len(others)} others", sum(others), _share(sum(others), total), ""))
    bars, height = _bars(drawn)
    slowest = ordered[0]
    notes = [f"{milliseconds(total)} ms in all, {profile.runs:,} runs."]
    if profile.derived:
        notes.append("Derived: differences between prefixes of the graph, not times of the engine.")
    if profile.note:
        notes.append(profile.note)
    return Chart(
        title=f"{name} (derived)" if profile.derived else name,
        text=f"Time of {len(ordered)} operators of {name}; the slowest is {slowest.kind} "
        f"{slowest.name}, {_share(slowest.ms, total)}.",
        figure=bars,
        height=height,
        header=("operator", "name", "ms", "where"),
        body=tuple(
            (operator.kind, operator.name, number(operator.ms, ".4f"), operator.where)
            for operator in ordered
        ),
        note=" ".join(notes),
    )


def _share(ms: float, total: float) -> str:
    return f"{ms:,.3f} ms" + (f" · {ms / total:.0%}" if total > 0 else "")


def _bars(bars: Sequence[Bar]) -> tuple[JSONObject, int]:
    """Returns the figure and its height.

    Names beside the bars would leave no room for the bars on a phone.

    Args:
        bars: from the top down, at least one.
    """
    groups = list(dict.fromkeys(bar.group for bar in bars if bar.group))
    legend = _LEGEND_HEIGHT if len(groups) > 1 else 0
    height = _BAR_HEIGHT * len(bars) + 8 + legend
    traces = [_trace(group, bars, series_colour(index)) for index, group in enumerate(groups)]
    if any(not bar.group for bar in bars):
        traces.append(_trace("", bars, MUTED))
    layout = {
        "annotations": [_label(position, bar) for position, bar in enumerate(bars)],
        "barmode": "overlay",
        "margin": {"l": 0, "r": 0, "t": legend, "b": 0, "pad": 0},
        "showlegend": bool(legend),
        "legend": {"itemclick": False, "itemdoubleclick": False},
        "xaxis": {"visible": False, "range": [0, max(1e-9, *(bar.value for bar in bars))]},
        "yaxis": {"visible": False, "range": [len(bars) - 0.6, -0.75]},
    }
    return figure(traces, layout, height), height


def _trace(group: str, bars: Sequence[Bar], colour: str) -> JSONObject:
    members = [(position, bar.value) for position, bar in enumerate(bars) if bar.group == group]
    return {
        "type": "bar",
        "orientation": "h",
        "name": literal(group),
        "showlegend": bool(group),
        "x": [value for _, value in members],
        "y": [position for position, _ in members],
        "width": 0.3,
        "marker": {"color": colour, "line": {"width": 0}},
        "hoverinfo": "skip",
    }


def _label(position: int, bar: Bar) -> JSONObject:
    # The value first: where a phone cuts the line, it cuts the name.
    return {
        "x": 0,
        "y": position,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 6,
        "xshift": -2,
        "showarrow": False,
        "align": "left",
        "text": f"<b>{literal(bar.text)}</b>  {literal(bar.name, _MAX_NAME_LENGTH)}",
        "font": {"color": INK, "size": 12},
    }
