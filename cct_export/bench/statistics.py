"""What the raw times say, and how sure that is."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cct_export.records import BenchResult
from cct_export.records.encoding import to_json

# A percentile is given only where runs lie beyond it: p99 needs a hundred.
_PERCENTILES = {50: 1, 90: 10, 95: 20, 99: 100}
_FIGURES = (
    "count", "mean", "min", "p50", "p90", "p95", "p99", "p50_interval", "stddev", "mad", "outliers",
)  # fmt: skip
RESAMPLES = 2000
CONFIDENCE = 0.95
# How much processes differ cannot be told from fewer.
ENOUGH_REPEATS = 3
# Relative standard deviation between processes where nothing tells: benchmarks/validate.py finds
# 0.01 to 0.02.
UNKNOWN_SPREAD = 0.02


class Interval(NamedTuple):
    """A figure and the bounds that hold at 95 %."""

    value: float
    low: float
    high: float


def summary(times_ns: Sequence[int]) -> dict[str, float | int | list[float] | None]:
    """Returns the figures of raw times, in milliseconds.

    Args:
        times_ns: nanoseconds per run, at least one. None is ever left out.

    Returns:
        count, mean, min, p50, p50_interval (bootstrap, 95 %), p90, p95, p99, stddev, mad (median
        absolute deviation from the median) and outliers (how many lie beyond Tukey's fences, 1.5
        interquartile ranges from the quartiles). null for a percentile that so few runs do not
        support, and for the standard deviation of a single run.
    """
    milliseconds = np.asarray(times_ns, np.float64) / 1e6
    percentiles = {
        f"p{rank}": float(np.percentile(milliseconds, rank)) if len(times_ns) >= needed else None
        for rank, needed in _PERCENTILES.items()
    }
    lower, median, upper = np.percentile(milliseconds, (25, 50, 75))
    reach = 1.5 * (upper - lower)
    beyond = (milliseconds < lower - reach) | (milliseconds > upper + reach)
    return {
        "count": len(times_ns),
        "mean": float(milliseconds.mean()),
        "min": float(milliseconds.min()),
        **percentiles,
        "p50_interval": list(median_interval(milliseconds)[1:]),
        "stddev": statistics.stdev(milliseconds) if len(times_ns) > 1 else None,
        "mad": float(np.median(np.abs(milliseconds - median))),
        "outliers": int(beyond.sum()),
    }


def told(result: BenchResult) -> dict[str, Any] | None:
    """Returns ``summary`` of a result, with None for what a tool did not report; None without.

    What is not in ``summary``, such as ``max``, is left as the tool reported it.
    """
    if result.times_ns:
        return summary(result.times_ns)
    if not result.reported_ms:
        return None
    figures: dict[str, Any] = dict.fromkeys(_FIGURES)
    figures.update(to_json(result.reported_ms))
    return figures


def median_interval(values: np.ndarray) -> Interval:
    """Returns the median with its bootstrap interval.

    A resample's median is the value whose rank is that of the middle one of n draws, and the
    middle one of n uniform numbers is Beta distributed: so its rank is drawn, not the resample
    (Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, section 10.3).

    Args:
        values: at least one, any order.
    """
    ordered = np.sort(values)
    n = len(ordered)
    middle = (n + 1) / 2
    ranks = np.random.default_rng(0).beta(middle, n + 1 - middle, RESAMPLES) * n
    medians = ordered[ranks.astype(int).clip(0, n - 1)]
    low, high = _bounds(medians)
    median = float(np.median(ordered))
    return Interval(median, min(low, median), max(high, median))


def headline_ms(result: BenchResult) -> float:
    """Returns the percentile that stands for the latency of ``result``, in milliseconds."""
    if result.reported_ms:
        return float(getattr(result.reported_ms, f"p{result.headline}"))
    return float(np.percentile(result.times_ns, result.headline)) / 1e6


def repeat_headlines_ms(result: BenchResult) -> tuple[float, ...]:
    """Returns the headline of every repeat, in milliseconds."""
    return tuple(
        float(np.percentile(np.concatenate(bursts), result.headline)) / 1e6
        for bursts in split(result)
    )


def spread(result: BenchResult) -> float:
    """Returns how far the headlines of the repeats lie apart, relative to the least of them."""
    figures = repeat_headlines_ms(result)
    return (max(figures) - min(figures)) / min(figures)


def ratio(candidate: BenchResult, reference: BenchResult) -> Interval:
    """Returns how many times the latency of ``reference`` that of ``candidate`` is.

    Bounds are those of a bootstrap over repeats, and over the bursts in each of them: what a
    process or a moment has in common is not taken for many independent observations. One process
    does not tell how much the next would differ: where there are too few, the spread is that
    between the other's, or a usual one.

    Args:
        candidate: with at least one run.
        reference: the same.
    """
    generator = np.random.default_rng(0)
    above = _resampled(candidate, generator) * _luck(candidate, reference, generator)
    below = _resampled(reference, generator) * _luck(reference, candidate, generator)
    value = headline_ms(candidate) / headline_ms(reference)
    drawn = above / below
    # The resamples tell how far a ratio may lie off, the runs where it lies.
    low, high = _bounds(drawn * (value / np.median(drawn)))
    return Interval(value, min(low, value), max(high, value))


def split(result: BenchResult) -> list[list[np.ndarray]]:
    """Returns the nanoseconds of ``result`` by repeat and burst."""
    times = np.asarray(result.times_ns, np.float64)
    sizes = result.bursts or ((len(times),),)
    repeats, start = [], 0
    for bursts in sizes:
        ends = start + np.cumsum(bursts)
        repeats.append(np.split(times[start : ends[-1]], ends[:-1] - start))
        start = int(ends[-1])
    return repeats


def _resampled(result: BenchResult, generator: np.random.Generator) -> np.ndarray:
    """Returns headlines (ms) of resamples of ``result``: of the medians of resampled bursts."""
    repeats = [
        np.array([np.percentile(burst, result.headline) for burst in bursts]) / 1e6
        for bursts in split(result)
    ]
    sizes = np.array([len(headlines) for headlines in repeats])
    padded = np.full((len(repeats), sizes.max()), np.nan)
    for row, headlines in zip(padded, repeats, strict=True):
        row[: len(headlines)] = headlines
    chosen = generator.integers(len(repeats), size=(RESAMPLES, len(repeats)))
    uniform = generator.random((RESAMPLES, len(repeats), sizes.max()))
    bursts = (uniform * sizes[chosen][..., None]).astype(int)
    drawn = padded[chosen[..., None], bursts]
    # A shorter repeat has as many draws as bursts.
    drawn[np.arange(sizes.max()) >= sizes[chosen][..., None]] = np.nan
    medians: np.ndarray = np.nanmedian(drawn.reshape(RESAMPLES, -1), axis=1)
    return medians


def _luck(result: BenchResult, other: BenchResult, generator: np.random.Generator) -> np.ndarray:
    """Returns by what factors so few processes may miss the latency of many; 1 if not so few.

    The spread between the other's processes is an estimate from few: hence Student's t.
    """
    count = len(split(result))
    if count >= ENOUGH_REPEATS:
        return np.ones(RESAMPLES)
    figures = np.log(repeat_headlines_ms(other))
    if len(figures) >= ENOUGH_REPEATS:
        drawn = generator.standard_t(len(figures) - 1, (RESAMPLES, count)) * figures.std(ddof=1)
    else:
        drawn = generator.standard_normal((RESAMPLES, count)) * UNKNOWN_SPREAD
    factors: np.ndarray = np.exp(np.median(drawn, axis=1))
    return factors


def _bounds(values: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)
