"""GPTQ changes the outputs less than rounding to the nearest, in representable weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.quantize.rounding import gptq, weight_params

seeds = st.integers(0, 2**32 - 1)


def correlated(random, count, width):
    """Inputs that are mixtures of few sources, so that they correlate."""
    sources = random.normal(size=(count, max(1, width // 4)))
    mixed = sources @ random.normal(size=(sources.shape[1], width))
    return mixed + 0.1 * random.normal(size=mixed.shape)


def second_moments(x):
    return x.T @ x / len(x)


def error(x, kernel, rounded):
    """The squared error of the outputs."""
    width = kernel.shape[-1]
    return np.mean((x @ (kernel - rounded).reshape(-1, width)) ** 2)


@given(seeds, st.integers(2, 40), st.integers(1, 8), st.sampled_from([4, 8]))
def test_rounded_weights_are_representable(seed, inputs, outputs, bits):
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(inputs, outputs))
    params = weight_params(kernel, bits)
    for rounded in (
        params.fake_quantize(kernel),
        gptq(kernel, params, second_moments(correlated(random, 64, inputs))),
    ):
        np.testing.assert_array_equal(params.fake_quantize(rounded), rounded)
        assert np.all(np.abs(params.quantize(rounded)) <= 2 ** (bits - 1) - 1)


@given(seeds, st.integers(16, 48), st.integers(8, 16), st.sampled_from([4, 8]))
def test_gptq_changes_the_outputs_less_than_rounding_to_the_nearest(seed, inputs, outputs, bits):
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(inputs, outputs))
    params = weight_params(kernel, bits)
    x = correlated(random, 256, inputs)
    rounded = gptq(kernel, params, second_moments(x))
    assert error(x, kernel, rounded) < error(x, kernel, params.fake_quantize(kernel))


def test_gptq_generalizes_to_other_inputs_of_the_same_distribution():
    random = np.random.default_rng(0)
    x = correlated(random, 4000, 32)
    kernel = random.normal(size=(32, 16))
    params = weight_params(kernel, 4)
    rounded = gptq(kernel, params, second_moments(x[:2000]))
    unseen = x[2000:]
    assert error(unseen, kernel, rounded) < 0.5 * error(
        unseen, kernel, params.fake_quantize(kernel)
    )


@given(seeds, st.integers(1, 24), st.floats(1e-6, 1e6))
def test_gptq_rounds_to_the_nearest_if_inputs_do_not_correlate(seed, inputs, size):
    kernel = np.random.default_rng(seed).normal(size=(inputs, 5))
    params = weight_params(kernel)
    rounded = gptq(kernel, params, np.eye(inputs) * size)
    np.testing.assert_array_equal(rounded, params.fake_quantize(kernel))


@pytest.mark.parametrize("dead", [[3], [0, 1, 2], list(range(8))])
def test_gptq_takes_inputs_that_are_always_zero(dead):
    random = np.random.default_rng(1)
    x = correlated(random, 200, 8)
    x[:, dead] = 0
    kernel = random.normal(size=(8, 4))
    params = weight_params(kernel)
    rounded = gptq(kernel, params, second_moments(x))
    np.testing.assert_array_equal(params.fake_quantize(rounded), rounded)
    assert error(x, kernel, rounded) <= error(x, kernel, params.fake_quantize(kernel))
    # They do not correlate with others: only their own rounding counts.
    np.testing.assert_array_equal(rounded[dead], params.fake_quantize(kernel)[dead])


def test_gptq_balances_the_errors_of_two_equal_inputs():
    kernel = np.array([[1.0, 0.4, -0.7], [0.3, 1.0, 1.0]])
    params = weight_params(kernel, 4)
    rounded = gptq(kernel, params, np.ones((2, 2)))
    # Only the sum of both weights matters; its error is at most half a scale.
    assert np.all(
        np.abs((rounded - kernel).sum(0)) <= params.scale / 2 + 0.02 * np.abs(kernel).sum(0)
    )
    assert (
        np.abs((rounded - kernel).sum(0)).max()
        < np.abs((params.fake_quantize(kernel) - kernel).sum(0)).max() + 1e-12
    )


def test_gptq_keeps_the_shape_of_a_convolution():
    random = np.random.default_rng(2)
    kernel = random.normal(size=(3, 3, 2, 5))
    params = weight_params(kernel, 4)
    x = correlated(random, 300, 18)
    rounded = gptq(kernel, params, second_moments(x))
    assert rounded.shape == kernel.shape
    flat = gptq(kernel.reshape(18, 5), params, second_moments(x))
    np.testing.assert_array_equal(rounded.reshape(18, 5), flat)
    assert error(x, kernel, rounded) < error(x, kernel, params.fake_quantize(kernel))


def test_gptq_does_not_modify_the_kernel():
    kernel = np.random.default_rng(3).normal(size=(6, 4))
    before = kernel.copy()
    gptq(kernel, weight_params(kernel), np.ones((6, 6)))
    np.testing.assert_array_equal(kernel, before)


@given(seeds, st.sampled_from([4, 8]), st.sampled_from([(7, 3), (3, 3, 2, 3)]))
def test_the_range_of_a_channel_ends_at_its_largest_weight(seed, bits, shape):
    kernel = np.random.default_rng(seed).normal(size=shape) * np.array([1e-3, 1, 1e3])
    params = weight_params(kernel, bits)
    assert params.bits == bits
    assert params.scale.shape == (3,)
    largest = np.abs(kernel).reshape(-1, 3).max(0)
    np.testing.assert_allclose(params.max_value, largest, rtol=1e-12)
    np.testing.assert_array_equal(params.min_value, -params.max_value)
    error = np.abs(params.fake_quantize(kernel) - kernel)
    assert np.all(error <= params.scale / 2 * (1 + 1e-9))


def test_a_channel_of_zeros_has_a_scale_and_stays_zero():
    kernel = np.array([[0.0, 2.0], [0.0, -1.0]])
    params = weight_params(kernel)
    assert np.all(np.isfinite(params.scale))
    assert np.all(params.scale > 0)
    for rounded in (params.fake_quantize(kernel), gptq(kernel, params, np.eye(2) + 0.5)):
        np.testing.assert_array_equal(rounded[:, 0], 0)


def row_by_row(kernel, params, moments):
    """The algorithm of the paper as it stands: each row is followed by an update of all others."""
    order = np.argsort(-np.diag(moments), kind="stable")
    damped = moments[np.ix_(order, order)]
    damped = damped + 0.01 * np.mean(np.diag(damped)) * np.eye(len(damped))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    remaining, rounded = kernel[order].copy(), np.empty_like(kernel)
    for index, row in enumerate(order):
        rounded[row] = params.fake_quantize(remaining[index])
        part = (remaining[index] - rounded[row]) / factor[index, index]
        remaining[index + 1 :] -= np.outer(factor[index, index + 1 :], part)
    return rounded


@pytest.mark.parametrize("inputs", [63, 64, 65, 128, 150])
def test_blocks_of_rows_round_as_single_rows(inputs):
    random = np.random.default_rng(inputs)
    kernel = random.normal(size=(inputs, 8))
    params = weight_params(kernel, 4)
    moments = second_moments(correlated(random, 400, inputs))
    rounded = gptq(kernel, params, moments)
    # Two ways of the same sum may fall on two sides of a half.
    assert np.mean(rounded != row_by_row(kernel, params, moments)) < 0.01
    assert np.mean(rounded != params.fake_quantize(kernel)) > 0.1


@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0])
def test_moments_of_nothing_round_to_the_nearest(value):
    kernel = np.random.default_rng(0).normal(size=(8, 4))
    params = weight_params(kernel)
    rounded = gptq(kernel, params, np.full((8, 8), value))
    np.testing.assert_array_equal(rounded, params.fake_quantize(kernel))
