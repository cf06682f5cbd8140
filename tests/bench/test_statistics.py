"""Statistics of raw times against the standard library; bounds of ratios."""

import itertools
import statistics
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.bench.statistics import (
    headline_ms,
    median_interval,
    ratio,
    repeat_headlines_ms,
    summary,
)
from cct_export.records import BenchResult, MeasuredFile, Runtime

TIMES = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@given(TIMES)
def test_figures_are_in_order_and_those_of_the_standard_library(times):
    latency = summary(times)
    milliseconds = [t / 1e6 for t in times]
    assert latency.count == len(times)
    assert latency.min == pytest.approx(min(milliseconds))
    assert latency.mean == pytest.approx(statistics.fmean(milliseconds))
    assert latency.p50 == pytest.approx(statistics.median(milliseconds))
    ranks = (latency.min, latency.p50, latency.p90, latency.p95, latency.p99)
    known = [rank for rank in ranks if rank is not None]
    rounding = 1 + 1e-12
    assert all(a <= b * rounding for a, b in itertools.pairwise(known))
    assert known[-1] <= max(milliseconds) * rounding


@given(TIMES, st.randoms())
def test_the_order_of_runs_does_not_matter(times, random):
    shuffled = list(times)
    random.shuffle(shuffled)
    latency, expected = asdict(summary(shuffled)), asdict(summary(times))
    assert latency.pop("p50_interval") == expected.pop("p50_interval")
    assert latency == pytest.approx(expected)


@pytest.mark.parametrize(
    ("runs", "supported"),
    [
        (1, set()),
        (9, set()),
        (10, {"p90"}),
        (20, {"p90", "p95"}),
        (99, {"p90", "p95"}),
        (100, {"p90", "p95", "p99"}),
    ],
)
def test_a_percentile_is_given_only_where_runs_lie_beyond_it(runs, supported):
    latency = summary(range(1, runs + 1))
    ranks = ("p90", "p95", "p99")
    assert {name for name in ranks if getattr(latency, name) is not None} == supported
    assert (latency.stddev is None) == (runs == 1)


def test_no_outlier_is_left_out():
    latency = summary([1_000_000] * 99 + [1_000_000_000])
    assert latency.mean == pytest.approx(10.99)
    assert latency.p50 == 1
    assert latency.count == 100
    assert latency.stddev > 90
    assert latency.outliers == 1


@given(TIMES)
def test_mad_is_the_median_distance_from_the_median(times):
    milliseconds = [t / 1e6 for t in times]
    middle = statistics.median(milliseconds)
    expected = statistics.median(abs(t - middle) for t in milliseconds)
    assert summary(times).mad == pytest.approx(expected, abs=1e-9)


def test_outliers_lie_beyond_tukeys_fences():
    times = [*range(100, 200), 250, 251, 1000]  # quartiles 125.5 and 176.5, fences 49 and 253
    assert summary(times).outliers == 1
    assert summary([*times, 1]).outliers == 2


@given(TIMES)
def test_the_interval_holds_the_median_and_lies_among_the_runs(times):
    value, low, high = median_interval(np.array(times, float))
    assert min(times) <= low <= value <= high <= max(times)


def test_the_interval_of_the_median_is_that_of_a_plain_bootstrap():
    random = np.random.default_rng(3)
    times = random.exponential(1.0, 301)
    resamples = random.choice(times, (4000, len(times)))
    low, high = np.percentile(np.median(resamples, axis=1), (2.5, 97.5))
    interval = median_interval(times)
    assert interval.low == pytest.approx(low, rel=0.04)
    assert interval.high == pytest.approx(high, rel=0.04)


def result(bursts, headline=50):
    """A result whose repeats have bursts of runs of so many milliseconds."""
    sizes = tuple(tuple(len(burst) for burst in repeat) for repeat in bursts)
    times = tuple(int(ms * 1e6) for repeat in bursts for burst in repeat for ms in burst)
    artifact = MeasuredFile("m", "tflite", "int8")
    runtime = Runtime("litert", "", "cpu", "xnnpack", "default", 1, {})
    return BenchResult(artifact, runtime, 1, times, sizes, headline=headline)


def test_the_headline_is_the_percentile_of_the_profile():
    assert headline_ms(result([[list(range(1, 102))]], headline=90)) == 91
    assert headline_ms(result([[list(range(1, 102))]])) == 51


def test_every_repeat_has_a_headline_of_its_own():
    bursts = [[[1, 1], [2, 1, 1]], [[3], [3, 3]]]
    assert repeat_headlines_ms(result(bursts)) == (1, 3)


STEADY = [[1.0] * 50] * 10
VARYING = [[[level] * 50] * 10 for level in (1.0, 1.1, 0.9, 1.0, 1.2)]


def test_the_bounds_of_a_ratio_hold_the_variance_between_repeats():
    interval = ratio(result(VARYING), result([STEADY] * 5))
    assert interval.value == pytest.approx(1.0)
    assert interval.low <= 0.95
    assert interval.high >= 1.1


@pytest.mark.parametrize("swapped", [False, True])
def test_the_variance_of_one_repeat_is_taken_from_the_other_result(swapped):
    sides = [result([STEADY]), result(VARYING)]
    interval = ratio(*(sides[::-1] if swapped else sides))
    assert interval.value == pytest.approx(1.0)
    assert interval.low < 0.85
    assert interval.high > 1.15


def test_the_variance_of_one_repeat_each_is_a_usual_one():
    interval = ratio(result([STEADY]), result([STEADY]))
    assert interval.value == 1
    # 1.96 standard deviations of 2 % on either side of the ratio.
    assert interval.low == pytest.approx(1 - 1.96 * 0.02 * 2**0.5, abs=0.005)
    assert interval.high == pytest.approx(1 + 1.96 * 0.02 * 2**0.5, abs=0.005)


@settings(max_examples=20)
@given(st.floats(0.2, 5))
def test_the_bounds_of_a_ratio_of_steady_times_are_tight(factor):
    interval = ratio(result([[[factor] * 9] * 4] * 3), result([[[1.0] * 9] * 4] * 3))
    assert interval == pytest.approx((factor,) * 3, rel=1e-5)
