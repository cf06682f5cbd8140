"""Horizontal bars with their names above them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cct_export.report.charts.chart import INK, MUTED, SERIES, figure, literal

_TALL, _LEGEND = 40, 28
_LONGEST_NAME = 34


class Bar(NamedTuple):
    """A bar.

    Attributes:
        name: of what is measured.
        value: its length.
        said: the value in words.
        group: what gives it its colour; empty for a bar that is in none.
    """

    name: str
    value: float
    said: str
    group: str


def bars(drawn: Sequence[Bar]) -> tuple[dict[str, Any], int]:
    """Returns the figure and the height that it needs.

    Names beside the bars would leave no room for the bars on a phone.

    Args:
        drawn: from the top down, at least one.
    """
    groups = list(dict.fromkeys(bar.group for bar in drawn if bar.group))
    legend = _LEGEND if len(groups) > 1 else 0
    height = _TALL * len(drawn) + 8 + legend
    traces = [
        _trace(group, drawn, SERIES[index % len(SERIES)]) for index, group in enumerate(groups)
    ]
    if any(not bar.group for bar in drawn):
        traces.append(_trace("", drawn, MUTED))
    layout = {
        "annotations": [_name(place, bar) for place, bar in enumerate(drawn)],
        "barmode": "overlay",
        "margin": {"l": 0, "r": 0, "t": legend, "b": 0, "pad": 0},
        "showlegend": bool(legend),
        "legend": {"itemclick": False, "itemdoubleclick": False},
        "xaxis": {"visible": False, "range": [0, max(1e-9, *(bar.value for bar in drawn))]},
        "yaxis": {"visible": False, "range": [len(drawn) - 0.6, -0.75]},
    }
    return figure(traces, layout, height), height


def _trace(group: str, drawn: Sequence[Bar], colour: str) -> dict[str, Any]:
    mine = [(place, bar.value) for place, bar in enumerate(drawn) if bar.group == group]
    return {
        "type": "bar",
        "orientation": "h",
        "name": literal(group),
        "showlegend": bool(group),
        "x": [value for _, value in mine],
        "y": [place for place, _ in mine],
        "width": 0.3,
        "marker": {"color": colour, "line": {"width": 0}},
        "hoverinfo": "skip",
    }


def _name(place: int, bar: Bar) -> dict[str, Any]:
    # The figure first: where a phone cuts the line, it cuts the name.
    return {
        "x": 0,
        "y": place,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 6,
        "xshift": -2,
        "showarrow": False,
        "align": "left",
        "text": f"<b>{literal(bar.said)}</b>  {literal(bar.name, _LONGEST_NAME)}",
        "font": {"color": INK, "size": 12},
    }
