"""Statistics of raw times, and how certain they are."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from cct_export.records import BenchResult

# Runs from which on a percentile is given: some of them must lie beyond it.
_NEEDED_RUNS = {50: 1, 90: 10, 95: 20, 99: 100}
RESAMPLES = 2000
_NUMBERS_AT_ONCE = 2**23
CONFIDENCE = 0.95
# From fewer processes their variance cannot be estimated.
ENOUGH_REPEATS = 3
# Relative standard deviation between processes where there is no estimate: benchmarks/validate.py
# finds 0.01 to 0.02.
UNKNOWN_SPREAD = 0.02


class Interval(NamedTuple):
    """A figure and its bounds at 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Statistics of a latency in milliseconds; None for what is not known.

    Attributes:
        count: number of runs.
        mean: of all runs; none is ever left out.
        min: fastest run.
        p50: median.
        p90: 90th percentile; None, as every percentile, where so few runs do not support it.
        p95: 95th percentile.
        p99: 99th percentile.
        p50_interval: bounds of the median at 95 % (bootstrap).
        stddev: standard deviation; None of a single run.
        mad: median absolute deviation from the median.
        outliers: how many runs lie beyond Tukey's fences, 1.5 interquartile ranges from the
            quartiles.
        max: slowest run, as a tool reported it; None where there are raw times.
    """

    count: int
    mean: float | None = None
    min: float | None = None
    p50: float
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p50_interval: tuple[float, float] | None = None
    stddev: float | None = None
    mad: float | None = None
    outliers: int | None = None
    max: float | None = None


def summary(times_ns: Sequence[int]) -> LatencySummary:
    """Returns the statistics of raw times.

    Args:
        times_ns: nanoseconds per run, at least one.
    """
    milliseconds = np.asarray(times_ns, np.float64) / 1e6
    percentiles = {
        rank: float(np.percentile(milliseconds, rank)) if len(times_ns) >= needed else None
        for rank, needed in _NEEDED_RUNS.items()
    }
    lower, median, upper = np.percentile(milliseconds, (25, 50, 75))
    reach = 1.5 * (upper - lower)
    beyond = (milliseconds < lower - reach) | (milliseconds > upper + reach)
    return LatencySummary(
        count=len(times_ns),
        mean=float(milliseconds.mean()),
        min=float(milliseconds.min()),
        p50=float(median),
        p90=percentiles[90],
        p95=percentiles[95],
        p99=percentiles[99],
        p50_interval=median_interval(milliseconds)[1:],
        stddev=statistics.stdev(milliseconds) if len(times_ns) > 1 else None,
        mad=float(np.median(np.abs(milliseconds - median))),
        outliers=int(beyond.sum()),
    )


def summary_of(result: BenchResult) -> LatencySummary | None:
    """Returns the statistics of a result, None if it has no latency.

    Of a tool that does not tell each run, they are what it reported.
    """
    if result.times_ns:
        return summary(result.times_ns)
    reported = result.reported_ms
    if reported is None:
        return None
    return LatencySummary(**asdict(reported))


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
        for bursts in _repeats(result)
    )


def spread(result: BenchResult) -> float:
    """Returns the range of the repeats' headlines, relative to the least of them."""
    headlines = repeat_headlines_ms(result)
    return (max(headlines) - min(headlines)) / min(headlines)


def ratio(candidate: BenchResult, reference: BenchResult) -> Interval:
    """Returns the latency of ``candidate`` over that of ``reference``.

    The bounds are those of a hierarchical bootstrap: over repeats, and over the bursts in each of
    them, because runs of one process, or of one moment, are not independent. Too few repeats do
    not tell the variance between processes: then it is that of the other result, or a usual one.

    Args:
        candidate: with at least one run.
        reference: the same.
    """
    generator = np.random.default_rng(0)
    above = _resampled_ms(candidate, generator)
    above *= _between_process_factors(candidate, reference, generator)
    below = _resampled_ms(reference, generator)
    below *= _between_process_factors(reference, candidate, generator)
    value = headline_ms(candidate) / headline_ms(reference)
    ratios = above / below
    # The resamples tell how far a ratio may be off, the runs where it lies.
    low, high = _bounds(ratios * (value / np.median(ratios)))
    return Interval(value, min(low, value), max(high, value))


def _repeats(result: BenchResult) -> list[list[np.ndarray]]:
    """Returns the nanoseconds of each burst of each repeat."""
    times = np.asarray(result.times_ns, np.float64)
    sizes = result.bursts or ((len(times),),)
    repeats, start = [], 0
    for bursts in sizes:
        ends = start + np.cumsum(bursts)
        repeats.append(np.split(times[start : ends[-1]], ends[:-1] - start))
        start = int(ends[-1])
    return repeats


def _resampled_ms(result: BenchResult, generator: np.random.Generator) -> np.ndarray:
    """Returns the headlines (ms) of resamples: medians over resampled bursts, ``(RESAMPLES,)``."""
    repeats = [
        np.array([np.percentile(burst, result.headline) for burst in bursts]) / 1e6
        for bursts in _repeats(result)
    ]
    sizes = np.array([len(headlines) for headlines in repeats])
    padded = np.full((len(repeats), sizes.max()), np.nan)
    for row, headlines in zip(padded, repeats, strict=True):
        row[: len(headlines)] = headlines
    chosen = generator.integers(len(repeats), size=(RESAMPLES, len(repeats)))
    # In parts, for their memory: the numbers are the same.
    parts = np.array_split(chosen, -(-RESAMPLES * padded.size // _NUMBERS_AT_ONCE))
    return np.concatenate([_medians(padded, sizes, part, generator) for part in parts])


def _medians(
    padded: np.ndarray, sizes: np.ndarray, chosen: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Returns the median over resampled bursts of each row of ``chosen`` repeats."""
    uniform = generator.random((*chosen.shape, padded.shape[1]))
    bursts = (uniform * sizes[chosen][..., None]).astype(int)
    samples = padded[chosen[..., None], bursts]
    # A shorter repeat has as many samples as bursts.
    samples[np.arange(padded.shape[1]) >= sizes[chosen][..., None]] = np.nan
    medians: np.ndarray = np.nanmedian(samples.reshape(len(chosen), -1), axis=1)
    return medians


def _between_process_factors(
    result: BenchResult, other: BenchResult, generator: np.random.Generator
) -> np.ndarray:
    """Returns samples of the factor by which the median of so few processes misses that of many.

    The variance between processes is estimated from the other's few: hence Student's t. The factors
    are 1 where there are enough processes, which the bootstrap samples itself.
    """
    count = len(_repeats(result))
    if count >= ENOUGH_REPEATS:
        return np.ones(RESAMPLES)
    logarithms = np.log(repeat_headlines_ms(other))
    if len(logarithms) >= ENOUGH_REPEATS:
        deviations = generator.standard_t(len(logarithms) - 1, (RESAMPLES, count))
        deviations *= logarithms.std(ddof=1)
    else:
        deviations = generator.standard_normal((RESAMPLES, count)) * UNKNOWN_SPREAD
    factors: np.ndarray = np.exp(np.median(deviations, axis=1))
    return factors


def _bounds(values: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)
