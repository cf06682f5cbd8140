"""Latency against accuracy: what costs what, and which artifacts nothing else beats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

from cct_export.report.charts.chart import INK, MUTED, PAPER, SERIES, Chart, axis, figure, literal
from cct_export.report.columns import milliseconds, number, share
from cct_export.report.rows import Row

_HEIGHT = 420
_BIGGEST, _SMALLEST = 44.0, 14.0
_SIDES = ("middle left", "middle right", "top right", "bottom left")


@dataclass(frozen=True)
class _Kind:
    """What latency is drawn against.

    Attributes:
        title: of the chart.
        axis: of what goes up.
        value: of a row.
        said: the value in words.
        higher: whether more of it is better.
    """

    title: str
    axis: str
    value: Callable[[Row], float]
    said: Callable[[Row], str]
    higher: bool = True


_ACCURACY = _Kind(
    "Latency and accuracy",
    "top-1, %",
    lambda row: 100 * row.top1.value if row.top1 else 0.0,
    lambda row: share(row.top1),
)
_NOISE = _Kind(
    "Latency and distance from Keras",
    "SQNR of the logits, dB",
    lambda row: row.sqnr_db or 0.0,
    lambda row: f"{number(row.sqnr_db, '.1f')} dB",
)
_SIZE = _Kind(
    "Latency and size",
    "kB",
    lambda row: row.kilobytes or 0.0,
    lambda row: f"{number(row.kilobytes, ',.0f')} kB",
    higher=False,
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns which points no other beats, in the order of the first coordinate.

    A point beats another that is not lower in the first coordinate and not higher in the second,
    and is not the same.

    Args:
        points: less of the first coordinate is better, more of the second.
    """
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        best = points[found[-1]] if found else None
        if best is None or points[index][1] > best[1] or points[index] == best:
            found.append(index)
    return found


def scatters(found: Sequence[Row], names: Sequence[str]) -> list[Chart]:
    """Returns latency against accuracy, or against noise or size for rows without accuracy.

    Args:
        found: rows; those without a latency are not drawn.
        names: of the rows.
    """
    groups: dict[str, tuple[_Kind, list[tuple[Row, str]]]] = {}
    for row, name in zip(found, names, strict=True):
        kind = _kind(row)
        if kind is not None:
            groups.setdefault(kind.title, (kind, []))[1].append((row, name))
    order = [kind.title for kind in (_ACCURACY, _NOISE, _SIZE) if kind.title in groups]
    # An engine has one colour on the whole page.
    engines = list(dict.fromkeys(row.engine for row in found))
    return [_scatter(*groups[title], engines) for title in order]


def _kind(row: Row) -> _Kind | None:
    if row.latency_ms is None:
        return None
    if row.top1 is not None:
        return _ACCURACY
    if row.sqnr_db is not None and isfinite(row.sqnr_db):
        return _NOISE
    return None if row.kilobytes is None else _SIZE


def _scatter(kind: _Kind, drawn: Sequence[tuple[Row, str]], engines: Sequence[str]) -> Chart:
    shown = [row for row, _ in drawn]
    latencies = [row.latency_ms or 0.0 for row in shown]
    values = [kind.value(row) for row in shown]
    better = values if kind.higher else [-value for value in values]
    best = front(list(zip(latencies, better, strict=True)))
    used = {row.engine for row in shown}
    traces = [
        _line([latencies[i] for i in best], [values[i] for i in best]),
        *(_points(engine, engines, kind, drawn) for engine in engines if engine in used),
    ]
    wide = max(latencies) > 8 * max(min(latencies), 1e-9)
    layout = {
        "xaxis": axis("latency, ms", type="log" if wide else "linear"),
        "yaxis": axis(kind.axis, tickformat=",~f"),
        "showlegend": True,
    }
    names = [drawn[i][1] for i in best]
    return Chart(
        title=kind.title,
        text=f"{kind.title} of {len(shown)} results. No other is better in both than: "
        f"{'; '.join(names)}.",
        figure=figure(traces, layout, _HEIGHT),
        height=_HEIGHT,
        header=("no.", "result", "latency ms", kind.axis, "kB", "front"),
        body=tuple(
            (
                str(row.number),
                name,
                milliseconds(row.latency_ms),
                kind.said(row),
                number(row.kilobytes, ",.0f"),
                "yes" if index in best else "no",
            )
            for index, (row, name) in enumerate(drawn)
        ),
        note="Numbers are those of the table. The area of a marker is the size of the file; the "
        "line joins results that no other beats in both.",
    )


def _line(x: list[float], y: list[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Pareto front",
        "x": x,
        "y": y,
        "line": {"color": MUTED, "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _points(
    engine: str, engines: Sequence[str], kind: _Kind, drawn: Sequence[tuple[Row, str]]
) -> dict[str, Any]:
    biggest = max([row.kilobytes or 0.0 for row, _ in drawn])
    # Neighbours have their numbers on different sides, and what is small lies on top.
    ordered = sorted(drawn, key=lambda pair: pair[0].latency_ms or 0.0)
    sides = {row.number: _SIDES[place % len(_SIDES)] for place, (row, _) in enumerate(ordered)}
    mine = [(row, name) for row, name in drawn if row.engine == engine]
    mine.sort(key=lambda pair: -(pair[0].kilobytes or 0.0))
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers+text",
        "name": literal(engine),
        "x": [row.latency_ms for row, _ in mine],
        "y": [kind.value(row) for row, _ in mine],
        "text": [str(row.number) for row, _ in mine],
        "textposition": [sides[row.number] for row, _ in mine],
        "textfont": {"color": INK},
        "hovertext": [
            f"{literal(name)}<br>{milliseconds(row.latency_ms)} ms, {kind.said(row)}"
            for row, name in mine
        ],
        "hoverinfo": "text",
        "marker": {
            "color": SERIES[engines.index(engine) % len(SERIES)],
            "opacity": 0.85,
            "line": {"color": PAPER, "width": 1},
            "size": [_diameter(row.kilobytes or 0.0, biggest) for row, _ in mine],
        },
    }
    if kind is _ACCURACY:
        bounds = [row.top1 for row, _ in mine if row.top1 is not None]
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (bound.high - bound.value) for bound in bounds],
            "arrayminus": [100 * (bound.value - bound.low) for bound in bounds],
            "color": SERIES[engines.index(engine) % len(SERIES)],
            "thickness": 1,
            "width": 3,
        }
    return trace


def _diameter(kilobytes: float, biggest: float) -> float:
    """Returns the pixels of a marker: its area is the size of the file, down to what one sees."""
    return max(_SMALLEST, _BIGGEST * sqrt(kilobytes / biggest)) if biggest else _SMALLEST
