"""Latency against accuracy, and the Pareto front: the results that no other beats in both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from cct_export.report.charts.chart import Chart, series_colour, shortened
from cct_export.report.charts.names import short_names
from cct_export.report.charts.scatter import Dot, scatter
from cct_export.report.columns import milliseconds, number, percentage
from cct_export.report.rows import Row
from cct_export.text import plural

_NOTE = (
    "Names leave out what all of them share; a number alone is that of the table. The area of a "
    "marker is the size of the file; the dotted line joins the Pareto front: the results that no "
    "other beats in both."
)


@dataclass(frozen=True)
class _Objective:
    """What latency is traded against.

    Attributes:
        title: of the chart.
        axis: title of the y axis.
        value: of a row.
        text: the value in words.
        maximized: whether more of it is better.
        interval: bounds of the value, None if not known.
    """

    title: str
    axis: str
    value: Callable[[Row], float]
    text: Callable[[Row], str]
    maximized: bool = True
    interval: Callable[[Row], tuple[float, float] | None] = lambda row: None


_ACCURACY = _Objective(
    "Latency and accuracy",
    "top-1, %",
    lambda row: 100 * row.top1.value if row.top1 else 0.0,
    lambda row: percentage(row.top1),
    interval=lambda row: (100 * row.top1.low, 100 * row.top1.high) if row.top1 else None,
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
    drawn = {row.engine for row, _ in points}
    colours = {
        engine: series_colour(index) for index, engine in enumerate(engines) if engine in drawn
    }
    largest = max(row.kilobytes or 0.0 for row, _ in points)
    dots = [
        Dot(
            x=latency,
            y=value,
            interval=objective.interval(row),
            area=(row.kilobytes or 0.0) / largest if largest else 0.0,
            colour=colours[row.engine],
            names=(short, str(row.number)),
            text=f"{shortened(name)}: {milliseconds(latency)} ms, {objective.text(row)}",
        )
        for (row, name), short, latency, value in zip(
            points, short_names([name for _, name in points]), latencies, values, strict=True
        )
    ]
    return Chart(
        title=objective.title,
        text=f"{objective.title} of {plural(len(points), 'result')}. Pareto front: "
        f"{'; '.join(points[i].name for i in best)}.",
        drawing=scatter(dots, best, x_title="latency, ms", y_title=objective.axis),
        legend=tuple(colours.items()),
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
        note=_NOTE if len(points) > 1 else "",
    )
