"""The summary of raw times against the standard library, and in order."""

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.bench.statistics import (
    headline_ms,
    median_interval,
    ratio,
    repeat_headlines_ms,
    summary,
)
from cct_export.records import BenchResult

TIMES = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@given(TIMES)
def test_figures_are_in_order_and_those_of_the_standard_library(times):
    found = summary(times)
    milliseconds = [t / 1e6 for t in times]
    assert found["count"] == len(times)
    assert found["min"] == pytest.approx(min(milliseconds))
    assert found["mean"] == pytest.approx(statistics.fmean(milliseconds))
    assert found["p50"] == pytest.approx(statistics.median(milliseconds))
    given_ones = [
        found[key] for key in ("min", "p50", "p90", "p95", "p99") if found[key] is not None
    ]
    rounding = 1 + 1e-12
    assert all(a <= b * rounding for a, b in itertools.pairwise(given_ones))
    assert given_ones[-1] <= max(milliseconds) * rounding


@given(TIMES, st.randoms())
def test_the_order_of_runs_does_not_matter(times, random):
    shuffled = list(times)
    random.shuffle(shuffled)
    found, wanted = summary(shuffled), summary(times)
    assert found.pop("p50_interval") == wanted.pop("p50_interval")
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("runs", "having"),
    [
        (1, set()),
        (9, set()),
        (10, {"p90"}),
        (20, {"p90", "p95"}),
        (99, {"p90", "p95"}),
        (100, {"p90", "p95", "p99"}),
    ],
)
def test_a_percentile_is_given_only_where_runs_lie_beyond_it(runs, having):
    found = summary(range(1, runs + 1))
    assert {key for key in ("p90", "p95", "p99") if found[key] is not None} == having
    assert (found["stddev"] is None) == (runs == 1)


def test_no_outlier_is_left_out():
    found = summary([1_000_000] * 99 + [1_000_000_000])
    assert found["mean"] == pytest.approx(10.99)
    assert found["p50"] == 1
    assert found["count"] == 100
    assert found["stddev"] > 90
    assert found["outliers"] == 1


@given(TIMES)
def test_mad_is_the_median_distance_from_the_median(times):
    milliseconds = [t / 1e6 for t in times]
    middle = statistics.median(milliseconds)
    wanted = statistics.median(abs(t - middle) for t in milliseconds)
    assert summary(times)["mad"] == pytest.approx(wanted, abs=1e-9)


def test_outliers_lie_beyond_tukeys_fences():
    times = [*range(100, 200), 250, 251, 1000]  # quartiles 125.5 and 176.5, fences 49 and 253
    assert summary(times)["outliers"] == 1
    assert summary([*times, 1])["outliers"] == 2


@given(TIMES)
def test_the_interval_holds_the_median_and_lies_among_the_runs(times):
    value, low, high = median_interval(np.array(times, float))
    assert min(times) <= low <= value <= high <= max(times)


def test_the_interval_of_the_median_is_that_of_a_plain_bootstrap():
    random = np.random.default_rng(3)
    times = random.exponential(1.0, 301)
    resamples = random.choice(times, (4000, len(times)))
    low, high = np.percentile(np.median(resamples, axis=1), (2.5, 97.5))
    found = median_interval(times)
    assert found.low == pytest.approx(low, rel=0.04)
    assert found.high == pytest.approx(high, rel=0.04)


def result(bursts, headline=50):
    """A result whose repeats have bursts of runs of so many milliseconds."""
    sizes = tuple(tuple(len(burst) for burst in repeat) for repeat in bursts)
    times = tuple(int(ms * 1e6) for repeat in bursts for burst in repeat for ms in burst)
    return BenchResult({"path": "m"}, {}, 1, times, sizes, headline=headline)


def test_the_headline_is_the_percentile_of_the_profile():
    one = result([[list(range(1, 102))]], headline=90)
    assert headline_ms(one) == 91
    assert headline_ms(result([[list(range(1, 102))]])) == 51


def test_every_repeat_has_a_headline_of_its_own():
    one = result([[[1, 1], [2, 1, 1]], [[3], [3, 3]]])
    assert repeat_headlines_ms(one) == (1, 3)


def test_a_ratio_holds_what_repeats_have_in_common():
    steady = result([[[1.0] * 50] * 10] * 5)
    moody = result([[[level] * 50] * 10 for level in (1.0, 1.1, 0.9, 1.0, 1.2)])
    found = ratio(moody, steady)
    assert found.value == pytest.approx(1.0)
    assert found.low <= 0.95
    assert found.high >= 1.1


MOODY = [[[level] * 50] * 10 for level in (1.0, 1.1, 0.9, 1.0, 1.2)]


@pytest.mark.parametrize("swapped", [False, True])
def test_one_repeat_is_as_unsure_as_the_other_sides_repeats_are(swapped):
    sides = [result([[[1.0] * 50] * 10]), result(MOODY)]
    found = ratio(*(sides[::-1] if swapped else sides))
    assert found.value == pytest.approx(1.0)
    assert found.low < 0.85
    assert found.high > 1.15


def test_one_repeat_each_is_not_sure_though_it_never_wavers():
    steady = result([[[1.0] * 50] * 10])
    found = ratio(steady, steady)
    assert found.value == 1
    # 1.96 standard deviations of 2 % on either side of the ratio.
    assert found.low == pytest.approx(1 - 1.96 * 0.02 * 2**0.5, abs=0.005)
    assert found.high == pytest.approx(1 + 1.96 * 0.02 * 2**0.5, abs=0.005)


@given(st.floats(0.2, 5))
def test_a_ratio_of_steady_times_is_sure(factor):
    found = ratio(result([[[factor] * 9] * 4] * 3), result([[[1.0] * 9] * 4] * 3))
    assert found == pytest.approx((factor,) * 3, rel=1e-5)
