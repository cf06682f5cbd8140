"""The histogram of the runs of a result."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from cct_export.bench import statistics
from cct_export.records import BenchResult
from cct_export.report.charts.axes import Scale, height_of, horizontal, vertical
from cct_export.report.charts.chart import Chart, series_colour
from cct_export.report.charts.svg import drawing, element, percent, tooltip
from cct_export.report.columns import milliseconds, number
from cct_export.text import plural

_MIN_BINS, _MAX_BINS = 8, 80
# Pixels from the top: the plot, and what is below it. Names of percentiles are above the plot.
_TOP, _BOTTOM, _HEIGHT = 38, 178, 218
# Of a percentile, as a share of the narrowest plot.
_NAME_WIDTH = 0.15
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
    runs = plural(len(result.times_ns), "run")
    histogram = bins(result.times_ns)
    summary = statistics.summary(result.times_ns)
    known = {"p50": summary.p50, "p90": summary.p90, "p99": summary.p99}
    percentiles = {name: ms for name, ms in known.items() if ms is not None}
    omitted = ""
    if histogram.beyond:
        verb = "is" if histogram.beyond == 1 else "are"
        omitted = (
            f", of which {histogram.beyond:,} slower than "
            f"{milliseconds(histogram.edges[-1])} ms {verb} not drawn"
        )
    text = ", ".join(f"{name} {milliseconds(ms)} ms" for name, ms in percentiles.items())
    return Chart(
        title=name,
        text=f"Histogram of {runs} of {name}: {text}.",
        drawing=_histogram(histogram, percentiles, series_colour(series)),
        header=tuple(_STATISTICS),
        body=(
            tuple(number(getattr(summary, name), pattern) for name, pattern in _STATISTICS.items()),
        ),
        note=f"{runs}{omitted}.",
    )


def _histogram(histogram: Bins, percentiles: dict[str, float], colour: str) -> str:
    across = Scale(histogram.edges[0], histogram.edges[-1])
    up = Scale(0.0, max(histogram.counts), whole=True)
    bars = []
    for (low, high), count in zip(pairwise(histogram.edges), histogram.counts, strict=True):
        if count:
            y = height_of(up, count, top=_TOP, bottom=_BOTTOM)
            bars.append(
                element(
                    "rect",
                    tooltip(f"{(low + high) / 2:,.3f} ms: {plural(count, 'run')}"),
                    x=percent(across.share(low)),
                    y=y,
                    width=percent(across.share(high) - across.share(low)),
                    height=_BOTTOM - y,
                )
            )
    return drawing(
        *vertical(up, "runs", top=_TOP, bottom=_BOTTOM, gap=24),
        element("g", *bars, fill=colour),
        *horizontal(across, "ms", top=_TOP, bottom=_BOTTOM, grid=False),
        *_marks({name: across.share(ms) for name, ms in percentiles.items() if ms <= across.high}),
        height=_HEIGHT,
        layout="axes",
    )


def _marks(shares: dict[str, float]) -> list[Element]:
    """Returns a line at each percentile, with names at p50 and p99 that do not overlap."""
    drawn = [
        element("line", class_="mark", x1=percent(x), x2=percent(x), y1=_TOP, y2=_BOTTOM)
        for x in shares.values()
    ]
    # Left of p50 is no room at the edge of the plot, and right of it is the name of p99.
    sides = {"p50": "end" if shares.get("p50", 1.0) > _NAME_WIDTH else "start", "p99": "start"}
    if sides["p50"] == "start" and shares.get("p99", 1.0) < 2 * _NAME_WIDTH:
        del sides["p99"]
    drawn += [
        element("text", x=percent(shares[name]), y=_TOP - 4, class_=f"{side} label", text=name)
        for name, side in sides.items()
        if name in shares
    ]
    return drawn
