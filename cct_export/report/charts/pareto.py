"""Latency against accuracy, and the Pareto front: the results that no other beats in both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import NamedTuple

from cct_export.report.charts.chart import (
    INK,
    MUTED,
    PAPER,
    Chart,
    axis,
    figure,
    literal,
    series_colour,
)
from cct_export.report.columns import milliseconds, number, percentage
from cct_export.report.rows import Row
from cct_export.specs import JSONObject

_HEIGHT = 420
_MAX_DIAMETER, _MIN_DIAMETER = 44.0, 14.0
_SIDES = ("middle left", "middle right", "top right", "bottom left")


@dataclass(frozen=True)
class _Objective:
    """What latency is traded against.

    Attributes:
        title: of the chart.
        axis: title of the y axis.
        value: of a row.
        text: the value in words.
        maximized: whether more of it is better.
    """

    title: str
    axis: str
    value: Callable[[Row], float]
    text: Callable[[Row], str]
    maximized: bool = True


_ACCURACY = _Objective(
    "Latency and accuracy",
    "top-1, %",
    lambda row: 100 * row.top1.value if row.top1 else 0.0,
    lambda row: percentage(row.top1),
)
_SQNR = _Objective(
    "Latency and SQNR",
    "SQNR of the logits, dB",
    lambda row: row.sqnr_db or 0.0,
    lambda row: f"{number(row.sqnr_db, '.1f')} dB",
)
_SIZE = _Objective(
    "Latency and size",
    "kB",
    lambda row: row.kilobytes or 0.0,
    lambda row: f"{number(row.kilobytes, ',.0f')} kB",
    maximized=False,
)


class Point(NamedTuple):
    """A row that is drawn, and its unique name."""

    row: Row
    name: str


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the indices of the Pareto front, in the order of the first coordinate.

    A point beats a different one if it is not higher in the first coordinate and not lower in the
    second.

    Args:
        points: less of the first coordinate is better, more of the second.
    """
    indices: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        best = points[indices[-1]] if indices else None
        if best is None or points[index][1] > best[1] or points[index] == best:
            indices.append(index)
    return indices


def scatters(rows: Sequence[Row], names: Sequence[str]) -> list[Chart]:
    """Returns latency against accuracy, for rows without accuracy against SQNR, else size.

    Args:
        rows: those without a latency are not drawn.
        names: of the rows.
    """
    points: dict[str, list[Point]] = {}
    for row, name in zip(rows, names, strict=True):
        objective = _objective(row)
        if objective is not None:
            points.setdefault(objective.title, []).append(Point(row, name))
    # An engine has one colour on the whole page.
    engines = list(dict.fromkeys(row.engine for row in rows))
    return [
        _scatter(objective, points[objective.title], engines)
        for objective in (_ACCURACY, _SQNR, _SIZE)
        if objective.title in points
    ]


def _objective(row: Row) -> _Objective | None:
    if row.latency_ms is None:
        return None
    if row.top1 is not None:
        return _ACCURACY
    if row.sqnr_db is not None and isfinite(row.sqnr_db):
        return _SQNR
    return None if row.kilobytes is None else _SIZE


def _scatter(objective: _Objective, points: Sequence[Point], engines: Sequence[str]) -> Chart:
    latencies = [row.latency_ms or 0.0 for row, _ in points]
    values = [objective.value(row) for row, _ in points]
    gains = values if objective.maximized else [-value for value in values]
    best = front(list(zip(latencies, gains, strict=True)))
    present = {row.engine for row, _ in points}
    traces = [
        _line([latencies[i] for i in best], [values[i] for i in best]),
        *(
            _markers(engine, series_colour(index), objective, points)
            for index, engine in enumerate(engines)
            if engine in present
        ),
    ]
    wide = max(latencies) > 8 * max(min(latencies), 1e-9)
    layout = {
        "xaxis": axis("latency, ms", type="log" if wide else "linear"),
        "yaxis": axis(objective.axis, tickformat=",~f"),
        "showlegend": True,
    }
    return Chart(
        title=objective.title,
        text=f"{objective.title} of {len(points)} results. Pareto front: "
        f"{'; '.join(points[i].name for i in best)}.",
        figure=figure(traces, layout, _HEIGHT),
        height=_HEIGHT,
        header=("no.", "result", "latency ms", objective.axis, "kB", "Pareto front"),
        body=tuple(
            (
                str(row.number),
                name,
                milliseconds(row.latency_ms),
                objective.text(row),
                number(row.kilobytes, ",.0f"),
                "yes" if index in best else "no",
            )
            for index, (row, name) in enumerate(points)
        ),
        note="Numbers are those of the table. The area of a marker is the size of the file; the "
        "line joins the Pareto front: the results that no other beats in both.",
    )


def _line(x: list[float], y: list[float]) -> JSONObject:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": x,
        "y": y,
        "line": {"color": MUTED, "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _markers(
    engine: str, colour: str, objective: _Objective, points: Sequence[Point]
) -> JSONObject:
    """Returns the trace of one engine."""
    largest = max(row.kilobytes or 0.0 for row, _ in points)
    # Neighbours have their numbers on different sides, and small markers lie on top.
    by_latency = sorted(points, key=lambda point: point.row.latency_ms or 0.0)
    sides = {row.number: _SIDES[i % len(_SIDES)] for i, (row, _) in enumerate(by_latency)}
    drawn = [point for point in points if point.row.engine == engine]
    drawn.sort(key=lambda point: -(point.row.kilobytes or 0.0))
    trace: JSONObject = {
        "type": "scatter",
        "mode": "markers+text",
        "name": literal(engine),
        "x": [row.latency_ms for row, _ in drawn],
        "y": [objective.value(row) for row, _ in drawn],
        "text": [str(row.number) for row, _ in drawn],
        "textposition": [sides[row.number] for row, _ in drawn],
        "textfont": {"color": INK},
        "hovertext": [
            f"{literal(name)}<br>{milliseconds(row.latency_ms)} ms, {objective.text(row)}"
            for row, name in drawn
        ],
        "hoverinfo": "text",
        "marker": {
            "color": colour,
            "opacity": 0.85,
            "line": {"color": PAPER, "width": 1},
            "size": [_diameter(row.kilobytes or 0.0, largest) for row, _ in drawn],
        },
    }
    if objective is _ACCURACY:
        intervals = [row.top1 for row, _ in drawn if row.top1 is not None]
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (interval.high - interval.value) for interval in intervals],
            "arrayminus": [100 * (interval.value - interval.low) for interval in intervals],
            "color": colour,
            "thickness": 1,
            "width": 3,
        }
    return trace


def _diameter(kilobytes: float, largest: float) -> float:
    """Returns the pixels of a marker whose area is the size of the file, but always visible."""
    return max(_MIN_DIAMETER, _MAX_DIAMETER * sqrt(kilobytes / largest) if largest else 0.0)
