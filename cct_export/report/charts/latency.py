"""Latency: the histogram of its runs, and how it changes under sustained load."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cct_export.bench import statistics
from cct_export.records import BenchResult, Sustained
from cct_export.report.charts.chart import INK, MUTED, Chart, axis, figure, series_colour
from cct_export.report.columns import milliseconds, number
from cct_export.specs import JSONObject

_MIN_BINS, _MAX_BINS = 8, 80
_HEIGHT = 220
# A long tail would squeeze all other runs into one bin: up to 2 % of the runs are not drawn.
_DRAWN_PERCENTILE = 98
_REACH = 4.0
_STATISTICS = {
    **dict.fromkeys(("min", "p50", "p90", "p95", "p99", "mean", "stddev"), ",.3f"),
    "outliers": ",d",
}


class Bins(NamedTuple):
    """A histogram.

    Attributes:
        edges: of the bins, in milliseconds, one more than counts.
        counts: runs in each bin.
        beyond: runs slower than the last edge.
    """

    edges: list[float]
    counts: list[int]
    beyond: int


def bins(times_ns: Sequence[int]) -> Bins:
    """Returns a histogram of raw times with at most ``_MAX_BINS`` bins.

    Args:
        times_ns: at least one.
    """
    times = np.asarray(times_ns, np.float64) / 1e6
    low = float(times.min())
    lower, upper = np.percentile(times, (25, 75))
    needed = float(np.percentile(times, _DRAWN_PERCENTILE, method="higher"))
    limit = min(float(times.max()), max(needed, float(upper + _REACH * (upper - lower))))
    drawn = times[times <= limit]
    high, beyond = float(drawn.max()), len(times) - len(drawn)
    if high == low:
        margin = max(0.01 * low, 0.5e-6)
        return Bins([low - margin, low + margin], [len(drawn)], beyond)
    # The Freedman–Diaconis rule (Z. Wahrscheinlichkeitstheorie 57, 1981).
    width = 2 * (upper - lower) / len(times) ** (1 / 3)
    size = int(np.clip((high - low) / width if width else _MAX_BINS, _MIN_BINS, _MAX_BINS))
    counts, edges = np.histogram(drawn, size, (low, high))
    return Bins(edges.tolist(), counts.tolist(), beyond)


def histogram(name: str, result: BenchResult, series: int) -> Chart:
    """Returns the histogram of the runs of a result.

    Args:
        name: of the result.
        result: with at least one run.
        series: index of its colour.
    """
    runs = len(result.times_ns)
    histogram = bins(result.times_ns)
    summary = statistics.summary(result.times_ns)
    edges = np.array(histogram.edges)
    trace = {
        "type": "bar",
        "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
        "y": histogram.counts,
        "width": np.diff(edges).tolist(),
        "marker": {"color": series_colour(series), "line": {"width": 0}},
        "hovertemplate": "%{x:.3f} ms: %{y} runs<extra></extra>",
    }
    known = {"p50": summary.p50, "p90": summary.p90, "p99": summary.p99}
    percentiles = {name: ms for name, ms in known.items() if ms is not None}
    last = histogram.edges[-1]
    layout = {
        "bargap": 0,
        "xaxis": axis("ms", showgrid=False, range=[histogram.edges[0], last]),
        "yaxis": axis("runs", rangemode="tozero"),
        "margin": {"t": 22, "r": 28},
        **_marks({name: ms for name, ms in percentiles.items() if ms <= last}),
    }
    text = ", ".join(f"{name} {milliseconds(ms)} ms" for name, ms in percentiles.items())
    omitted = ""
    if histogram.beyond:
        omitted = (
            f", of which {histogram.beyond:,} slower than {milliseconds(last)} ms are not drawn"
        )
    return Chart(
        title=name,
        text=f"Histogram of {runs:,} runs of {name}: {text}.",
        figure=figure([trace], layout, _HEIGHT),
        height=_HEIGHT,
        header=tuple(_STATISTICS),
        body=(
            tuple(number(getattr(summary, name), pattern) for name, pattern in _STATISTICS.items()),
        ),
        note=f"{runs:,} runs{omitted}.",
    )


def _marks(positions: dict[str, float]) -> JSONObject:
    """Returns a line at each percentile, with names at p50 and p99 that do not overlap."""
    lines = [
        {
            "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": MUTED, "width": 1, "dash": "dot"},
        }
        for x in positions.values()
    ]  # fmt: skip
    labels = [
        {
            "x": positions[name], "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": side,
            "text": name, "showarrow": False, "font": {"size": 11, "color": INK},
        }
        for name, side in (("p50", "right"), ("p99", "left"))
        if name in positions
    ]  # fmt: skip
    return {"shapes": lines, "annotations": labels}


class _Line(NamedTuple):
    """A quantity over time; None where it is not known."""

    panel: str
    name: str
    values: Sequence[float | None]


def sustained(name: str, measured: Sustained) -> Chart:
    """Returns latency over time, and below it temperature and frequency where they are known."""
    minutes = [measured.interval_s * (index + 1) / 60 for index in range(len(measured.p50_ms))]
    lines = [
        _Line("ms", "p50", measured.p50_ms),
        _Line("ms", "p90", measured.p90_ms),
        _Line("°C", "temperature", measured.temperature_c),
        _Line("MHz", "frequency", measured.frequency_mhz),
    ]
    lines = [line for line in lines if any(value is not None for value in line.values)]
    panels = list(dict.fromkeys(line.panel for line in lines))
    height = 120 + 110 * len(panels)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": line.name,
            "x": minutes,
            "y": list(line.values),
            "yaxis": _axis_name("y", panels.index(line.panel)),
            "line": {"width": 2, "color": series_colour(index)},
        }
        for index, line in enumerate(lines)
    ]
    first, last = measured.p50_ms[0], measured.p50_ms[-1]
    values = [line.values for line in lines]
    return Chart(
        title=name,
        text=f"Latency of {name} over {minutes[-1]:.1f} minutes of sustained load: p50 from "
        f"{milliseconds(first)} ms in the first interval to {milliseconds(last)} ms in the last.",
        figure=figure(traces, _stacked(panels), height),
        height=height,
        header=("minute", *(line.name for line in lines)),
        body=tuple(
            (f"{minute:.1f}", *(number(value, ",.3f") for value in row))
            for minute, *row in zip(minutes, *values, strict=False)
        ),
        note=f"p50 changed by {last / first - 1:+.1%} from the first interval to the last."
        if first
        else "",
    )


def _axis_name(axis: str, index: int) -> str:
    """Returns what plotly.js calls the axis of a panel: ``y``, ``y2``, ``y3``."""
    return axis if index == 0 else f"{axis}{index + 1}"


def _stacked(units: Sequence[str]) -> JSONObject:
    """Returns the layout of panels one above the other that share their x axis."""
    gap, count = 0.08, len(units)
    height = (1 - gap * (count - 1)) / count
    layout: JSONObject = {
        "showlegend": True,
        "xaxis": axis("minutes", anchor=_axis_name("y", count - 1)),
    }
    for index, unit in enumerate(units):
        top = 1 - index * (height + gap)
        layout[_axis_name("yaxis", index)] = axis(unit, domain=[max(0.0, top - height), top])
    return layout
