"""Ranges of tensors whose values are known, and the qparams that come of them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cct_export.graph.quantized import QuantParams
from cct_export.quantize.ranges import METHODS, PERCENTILE, clipped_share, grid, squared_error
from cct_export.quantize.statistics import BINS, Distribution
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


def distribution(values):
    low, high = float(values.min()), float(values.max())
    return Distribution(low, high, np.histogram(values, BINS, (low, high))[0])


KNOWN = {name: distribution(values) for name, values in VALUES.items()}
cases = pytest.mark.parametrize("case", KNOWN)
methods = pytest.mark.parametrize("method", METHODS)


def test_these_are_the_methods_that_can_be_asked_for():
    assert set(METHODS) == set(METHOD_NAMES)


@cases
def test_min_max_clips_nothing(case):
    values = KNOWN[case]
    assert METHODS["min-max"](values, 8) == (values.low, values.high)
    assert clipped_share(values, grid((values.low, values.high), 8)) == 0


@cases
@methods
def test_a_range_is_within_the_values(case, method):
    low, high = METHODS[method](KNOWN[case], 8)
    values = KNOWN[case]
    assert low < high
    assert min(values.low, 0) <= low
    assert high <= max(values.high, 0)


@cases
@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_has_the_least_squared_error_of_all_that_scale_the_range(case, symmetric):
    values = KNOWN[case]
    errors = {
        name: squared_error(values, grid(method(values, 8), 8)) for name, method in METHODS.items()
    }
    assert errors["mse"] <= errors["min-max"]
    assert errors["mse"] <= errors["entropy"]


@cases
def test_percentile_keeps_the_share_that_it_says(case):
    values = VALUES[case]
    low, high = METHODS["percentile"](KNOWN[case], 8)
    assert np.mean((values >= low) & (values <= high)) >= PERCENTILE


def test_percentile_cuts_an_outlier_and_min_max_does_not():
    values = KNOWN["with an outlier"]
    low, high = METHODS["percentile"](values, 8)
    assert high < 6
    assert low > -6
    assert METHODS["min-max"](values, 8)[1] == 60


def test_mse_cuts_an_outlier_where_finer_steps_for_all_others_are_worth_more():
    many = np.abs(RANDOM.normal(size=1_000_000))
    # One value 10 beyond the range costs 100/10^6; steps of 20/255, not 10/255, four times it.
    assert METHODS["mse"](distribution(np.append(many, 20.0)), 8)[1] < 12
    # Among a thousand values the one counts a thousand times as much.
    assert METHODS["mse"](distribution(np.append(many[:1000], 20.0)), 8)[1] > 18


def test_entropy_cuts_an_outlier():
    values = np.append(np.abs(RANDOM.normal(size=100_000)), 20.0)
    assert METHODS["entropy"](distribution(values), 8)[1] < 10


def test_squared_error_is_what_rounding_and_clipping_give():
    # More values than steps inside, clipped ones outside: both parts count.
    values = VALUES["normal"]
    coarse = grid((-2.0, 2.0), 8)
    found = squared_error(KNOWN["normal"], coarse)
    wanted = np.mean((coarse.snap(values) - values) ** 2)
    # Half a bin of 2048 is what the histogram does not know of where a value is.
    assert found == pytest.approx(wanted, rel=0.05)


ends = st.floats(-1e4, 1e4).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(ends, ends, st.sampled_from([8, 16]), st.booleans())
def test_zero_has_an_integer_and_the_range_is_covered(a, b, bits, symmetric):
    low, high = sorted((a, b))
    made = grid((low, high), bits, symmetric)
    assert made.bits == bits
    assert made.low <= made.zero_point <= made.high
    assert isinstance(made.zero_point, int)
    np.testing.assert_array_equal(made.snap(np.zeros(1)), 0)
    if symmetric or bits == 16:
        assert made.zero_point == 0
        assert made.low == -made.high - 1
    # The place of 0 is rounded: up to half a step of either end may be missing.
    half = float(made.scale) / 2 * (1 + 1e-9)
    assert float(made.smallest) <= min(low, 0) + half
    assert float(made.largest) >= max(high, 0) - half


@given(ends, ends)
def test_8_bits_waste_no_place(a, b):
    low, high = min(a, b, 0), max(a, b, 0)
    assume(low < high)
    made = grid((low, high), 8)
    assert float(made.largest - made.smallest) == pytest.approx(high - low, rel=1e-9)


def test_16_bits_have_room_for_twice_the_range():
    made = grid((-1.0, 3.0), 16)
    assert float(made.largest) == pytest.approx(6)
    assert float(made.smallest) == pytest.approx(-6, rel=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tensor_that_is_always_zero_has_a_grid(bits, symmetric):
    made = grid((0.0, 0.0), bits, symmetric)
    assert float(made.scale) > 0
    np.testing.assert_array_equal(made.snap(np.zeros(3)), 0)


def test_the_clipped_share_is_that_of_values_beyond_the_grid():
    counts = np.array([10, 20, 30, 40])
    values = Distribution(0.0, 4.0, counts)  # centres 0.5, 1.5, 2.5, 3.5
    half_of_it = QuantParams(np.array(2 / 255), -128, -128, 127)
    assert clipped_share(values, half_of_it) == pytest.approx(0.7)
    assert clipped_share(values, grid((0.0, 4.0), 8)) == 0


def test_what_rounds_to_the_last_place_is_not_clipped():
    values = Distribution(0.0, 2.0, np.array([1, 1]))  # centres 0.5, 1.5
    near = QuantParams(np.array(1.0), 0, -1, 1)
    assert clipped_share(values, near) == 0
    assert clipped_share(values, QuantParams(np.array(0.9), 0, -1, 1)) == 0.5
