"""The summary of raw times against the standard library, and in order."""

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.measurement.statistics import summary

TIMES = st.lists(st.integers(1, 10**12), min_size=1, max_size=300)


@given(TIMES)
def test_figures_are_in_order_and_those_of_the_standard_library(times):
    found = summary(times)
    milliseconds = [t / 1e6 for t in times]
    assert found["count"] == len(times)
    assert found["min"] == pytest.approx(min(milliseconds))
    assert found["mean"] == pytest.approx(statistics.fmean(milliseconds))
    assert found["p50"] == pytest.approx(statistics.median(milliseconds))
    given_ones = [found[key] for key in ("min", "p50", "p90", "p99") if found[key] is not None]
    rounding = 1 + 1e-12
    assert all(a <= b * rounding for a, b in itertools.pairwise(given_ones))
    assert given_ones[-1] <= max(milliseconds) * rounding


@given(TIMES, st.randoms())
def test_the_order_of_runs_does_not_matter(times, random):
    shuffled = list(times)
    random.shuffle(shuffled)
    assert summary(shuffled) == pytest.approx(summary(times))


@pytest.mark.parametrize(
    ("runs", "having"),
    [(1, set()), (9, set()), (10, {"p90"}), (99, {"p90"}), (100, {"p90", "p99"})],
)
def test_a_percentile_is_given_only_where_runs_lie_beyond_it(runs, having):
    found = summary(range(1, runs + 1))
    assert {key for key in ("p90", "p99") if found[key] is not None} == having
    assert (found["stddev"] is None) == (runs == 1)


def test_no_outlier_is_left_out():
    found = summary([1_000_000] * 99 + [1_000_000_000])
    assert found["mean"] == pytest.approx(10.99)
    assert found["p50"] == 1
    assert found["count"] == 100
    assert found["stddev"] > 90
