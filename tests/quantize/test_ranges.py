"""Range methods on known distributions, and the quantization parameters of ranges."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cct_export.graph.quantized import QuantParams
from cct_export.quantize.params import activation_params
from cct_export.quantize.ranges import (
    METHODS,
    PERCENTILE,
    clipped_share,
    squared_error,
)
from cct_export.quantize.statistics import BINS, Histogram
from cct_export.specs import METHODS as METHOD_NAMES

RANDOM = np.random.default_rng(0)
VALUES = {
    "normal": RANDOM.normal(size=100_000),
    "after relu": np.maximum(RANDOM.normal(size=100_000), 0),
    "heavy tails": RANDOM.standard_t(3, size=100_000),
    "with an outlier": np.append(RANDOM.normal(size=100_000), 60.0),
    "all negative": -RANDOM.exponential(size=100_000) - 0.1,
    "uniform": RANDOM.uniform(-1, 3, size=100_000),
}


def histogram_of(values):
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0])


HISTOGRAMS = {name: histogram_of(values) for name, values in VALUES.items()}
cases = pytest.mark.parametrize("case", HISTOGRAMS)
methods = pytest.mark.parametrize("method", METHODS)


def test_the_table_has_exactly_the_methods_of_the_specs():
    assert set(METHODS) == set(METHOD_NAMES)


@cases
def test_min_max_clips_nothing(case):
    histogram = HISTOGRAMS[case]
    assert METHODS["min-max"](histogram, 8) == (histogram.low, histogram.high)
    assert clipped_share(histogram, activation_params((histogram.low, histogram.high), 8)) == 0


@cases
@methods
def test_a_range_lies_within_the_values(case, method):
    low, high = METHODS[method](HISTOGRAMS[case], 8)
    histogram = HISTOGRAMS[case]
    assert low < high
    assert min(histogram.low, 0) <= low
    assert high <= max(histogram.high, 0)


@cases
@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_has_the_least_squared_error_of_all_methods_that_scale_the_range(case, symmetric):
    histogram = HISTOGRAMS[case]
    errors = {
        name: squared_error(histogram, activation_params(method(histogram, 8), 8))
        for name, method in METHODS.items()
    }
    assert errors["mse"] <= errors["min-max"]
    assert errors["mse"] <= errors["entropy"]


@cases
def test_percentile_keeps_its_share_of_the_values(case):
    values = VALUES[case]
    low, high = METHODS["percentile"](HISTOGRAMS[case], 8)
    assert np.mean((values >= low) & (values <= high)) >= PERCENTILE


def test_percentile_clips_an_outlier_and_min_max_does_not():
    histogram = HISTOGRAMS["with an outlier"]
    low, high = METHODS["percentile"](histogram, 8)
    assert high < 6
    assert low > -6
    assert METHODS["min-max"](histogram, 8)[1] == 60


def test_mse_clips_an_outlier_where_a_finer_scale_for_all_others_is_worth_more():
    many = np.abs(RANDOM.normal(size=1_000_000))
    # Clipping one value by 10 costs 100/10^6; a scale of 20/255, not 10/255, costs four times it.
    assert METHODS["mse"](histogram_of(np.append(many, 20.0)), 8)[1] < 12
    # Among a thousand values the outlier counts a thousand times as much.
    assert METHODS["mse"](histogram_of(np.append(many[:1000], 20.0)), 8)[1] > 18


def test_entropy_clips_an_outlier():
    values = np.append(np.abs(RANDOM.normal(size=100_000)), 20.0)
    assert METHODS["entropy"](histogram_of(values), 8)[1] < 10


def test_squared_error_is_that_of_rounding_and_clipping():
    # Values inside are rounded, those outside clipped.
    values = VALUES["normal"]
    coarse = activation_params((-2.0, 2.0), 8)
    error = squared_error(HISTOGRAMS["normal"], coarse)
    expected = np.mean((coarse.fake_quantize(values) - values) ** 2)
    # The histogram knows a value only to half a bin of 2048.
    assert error == pytest.approx(expected, rel=0.05)


ends = st.floats(-1e4, 1e4).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(ends, ends, st.sampled_from([8, 16]), st.booleans())
def test_zero_is_representable_and_the_range_is_covered(a, b, bits, symmetric):
    low, high = sorted((a, b))
    params = activation_params((low, high), bits, symmetric)
    assert params.bits == bits
    assert params.qmin <= params.zero_point <= params.qmax
    assert isinstance(params.zero_point, int)
    np.testing.assert_array_equal(params.fake_quantize(np.zeros(1)), 0)
    if symmetric:
        assert params.zero_point == 0
        assert params.qmin == -params.qmax - 1
    # The zero point is rounded: up to half a scale may be missing at either end.
    half = float(params.scale) / 2 * (1 + 1e-9)
    assert float(params.min_value) <= min(low, 0) + half
    assert float(params.max_value) >= max(high, 0) - half


@given(ends, ends)
def test_8_bits_span_exactly_the_range(a, b):
    low, high = min(a, b, 0), max(a, b, 0)
    assume(low < high)
    params = activation_params((low, high), 8)
    assert float(params.max_value - params.min_value) == pytest.approx(high - low, rel=1e-9)


@pytest.mark.parametrize(("symmetric", "lowest"), [(True, -6), (False, -2)])
def test_16_bits_have_headroom_for_twice_the_range(symmetric, lowest):
    params = activation_params((-1.0, 3.0), 16, symmetric)
    assert float(params.max_value) == pytest.approx(6, rel=1e-4)
    assert float(params.min_value) == pytest.approx(lowest, rel=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tensor_that_is_always_zero_has_a_scale(bits, symmetric):
    params = activation_params((0.0, 0.0), bits, symmetric)
    assert float(params.scale) > 0
    np.testing.assert_array_equal(params.fake_quantize(np.zeros(3)), 0)


def test_the_clipped_share_is_that_of_values_beyond_the_range():
    counts = np.array([10, 20, 30, 40])
    histogram = Histogram(0.0, 4.0, counts)  # centres 0.5, 1.5, 2.5, 3.5
    half_range = QuantParams(np.array(2 / 255), -128, -128, 127)
    assert clipped_share(histogram, half_range) == pytest.approx(0.7)
    assert clipped_share(histogram, activation_params((0.0, 4.0), 8)) == 0


def test_a_value_that_rounds_to_the_last_integer_is_not_clipped():
    histogram = Histogram(0.0, 2.0, np.array([1, 1]))  # centres 0.5, 1.5
    params = QuantParams(np.array(1.0), 0, -1, 1)
    assert clipped_share(histogram, params) == 0
    assert clipped_share(histogram, QuantParams(np.array(0.9), 0, -1, 1)) == 0.5
