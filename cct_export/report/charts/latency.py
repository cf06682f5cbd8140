"""How long runs take: how often which time, and over a long time without a pause."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cct_export.bench import statistics
from cct_export.records import BenchResult, Sustained
from cct_export.report.charts.chart import INK, MUTED, SERIES, Chart, axis, figure
from cct_export.report.columns import milliseconds, number

_MOST_BINS = 80
_HEIGHT = 220
# A long tail would leave one bar of the rest: up to 2 % of the runs are left out, and said.
_DRAWN = 98
_REACH = 4.0
_FIGURES = {
    **dict.fromkeys(("min", "p50", "p90", "p95", "p99", "mean", "stddev"), ",.3f"),
    "outliers": ",d",
}


class Bins(NamedTuple):
    """How often which time.

    Attributes:
        edges: of the bins, in milliseconds, one more than counts.
        counts: runs in each bin.
        beyond: runs slower than the last edge.
    """

    edges: list[float]
    counts: list[int]
    beyond: int


def bins(times_ns: Sequence[int]) -> Bins:
    """Returns a histogram of raw times, at most 80 bins however many there are.

    Args:
        times_ns: at least one.
    """
    values = np.asarray(times_ns, np.float64) / 1e6
    low, high = float(values.min()), float(values.max())
    lower, upper = np.percentile(values, (25, 75))
    most = float(np.percentile(values, _DRAWN, method="higher"))
    high = min(high, max(most, float(upper + _REACH * (upper - lower))))
    kept = values[values <= high]
    high = float(kept.max())
    if high == low:
        reach = max(0.01 * low, 0.5e-6)
        return Bins([low - reach, low + reach], [len(kept)], len(values) - len(kept))
    # The rule of Freedman and Diaconis.
    width = 2 * (upper - lower) / len(values) ** (1 / 3)
    size = int(np.clip((high - low) / width if width else _MOST_BINS, 8, _MOST_BINS))
    counts, edges = np.histogram(kept, size, (low, high))
    return Bins(edges.tolist(), counts.tolist(), len(values) - len(kept))


def histogram(name: str, result: BenchResult, series: int) -> Chart:
    """Returns how often which latency was measured.

    Args:
        name: of the result.
        result: with at least one run.
        series: which colour.
    """
    found = bins(result.times_ns)
    summary = statistics.summary(result.times_ns)
    edges = np.array(found.edges)
    trace = {
        "type": "bar",
        "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
        "y": found.counts,
        "width": np.diff(edges).tolist(),
        "marker": {"color": SERIES[series % len(SERIES)], "line": {"width": 0}},
        "hovertemplate": "%{x:.3f} ms: %{y} runs<extra></extra>",
    }
    marks = {"p50": summary.p50, "p90": summary.p90, "p99": summary.p99}
    layout = {
        "bargap": 0,
        "xaxis": axis("ms", showgrid=False, range=[found.edges[0], found.edges[-1]]),
        "yaxis": axis("runs", rangemode="tozero"),
        "margin": {"t": 22, "r": 28},
        **_marks({k: v for k, v in marks.items() if v is not None and v <= found.edges[-1]}),
    }
    said = ", ".join(
        f"{rank} {milliseconds(ms)} ms" for rank, ms in marks.items() if ms is not None
    )
    return Chart(
        title=name,
        text=f"Histogram of {summary.count:,} runs of {name}: {said}.",
        figure=figure([trace], layout, _HEIGHT),
        height=_HEIGHT,
        header=tuple(_FIGURES),
        body=(
            tuple(number(getattr(summary, name), pattern) for name, pattern in _FIGURES.items()),
        ),
        note=_note(len(result.times_ns), found),
    )


def _note(runs: int, found: Bins) -> str:
    said = f"{runs:,} runs"
    if not found.beyond:
        return f"{said}."
    last = milliseconds(found.edges[-1])
    return f"{said}, of which {found.beyond:,} slower than {last} ms are not drawn."


def _marks(places: dict[str, float]) -> dict[str, Any]:
    """Returns lines, the first and the last with a word that leans away from the other."""
    lines = [
        {
            "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": MUTED, "width": 1, "dash": "dot"},
        }
        for x in places.values()
    ]  # fmt: skip
    words = [
        {
            "x": places[name], "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": side,
            "text": name, "showarrow": False, "font": {"size": 11, "color": INK},
        }
        for name, side in (("p50", "right"), ("p99", "left"))
        if name in places
    ]  # fmt: skip
    return {"shapes": lines, "annotations": words}


def sustained(name: str, found: Sustained) -> Chart:
    """Returns the latency over a long time, and below it temperature and frequency if known."""
    minutes = [found.interval_s * (index + 1) / 60 for index in range(len(found.p50_ms))]
    tracks: list[tuple[str, list[tuple[str, Sequence[float | None]]]]] = [
        ("ms", [("p50", found.p50_ms), ("p90", found.p90_ms)]),
        ("°C", [("temperature", found.temperature_c)]),
        ("MHz", [("frequency", found.frequency_mhz)]),
    ]
    shown = [(unit, lines) for unit, lines in tracks if any(v is not None for v in lines[0][1])]
    height = 120 + 110 * len(shown)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": word,
            "x": minutes,
            "y": list(values),
            "yaxis": "y" if place == 0 else f"y{place + 1}",
            "line": {"width": 2, "color": SERIES[place + index + (place > 0)]},
        }
        for place, (_, lines) in enumerate(shown)
        for index, (word, values) in enumerate(lines)
    ]
    first, last = found.p50_ms[0], found.p50_ms[-1]
    known = [values for _, lines in shown for _, values in lines]
    body = tuple(
        (f"{minute:.1f}", *(number(value, ",.3f") for value in values))
        for minute, *values in zip(minutes, *known, strict=False)
    )
    return Chart(
        title=name,
        text=f"Latency of {name} over {minutes[-1]:.1f} minutes without a pause: p50 from "
        f"{milliseconds(first)} ms in the first interval to {milliseconds(last)} ms in the last.",
        figure=figure(traces, _stacked([unit for unit, _ in shown]), height),
        height=height,
        header=("minute", *(word for _, lines in shown for word, _ in lines)),
        body=body,
        note=f"p50 changed by {last / first - 1:+.1%} from the first interval to the last."
        if first
        else "",
    )


def _stacked(units: Sequence[str]) -> dict[str, Any]:
    """Returns a layout of charts one above the other that share their x axis."""
    gap, count = 0.08, len(units)
    tall = (1 - gap * (count - 1)) / count
    layout: dict[str, Any] = {
        "showlegend": True,
        "xaxis": axis("minutes", anchor="y" if count == 1 else f"y{count}"),
    }
    for place, unit in enumerate(units):
        top = 1 - place * (tall + gap)
        name = "yaxis" if place == 0 else f"yaxis{place + 1}"
        layout[name] = axis(unit, domain=[max(0.0, top - tall), top])
    return layout
