"""Learned rounding changes the outputs least, and never leaves the grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.quantize.rounding import gptq, nearest, weight_grid

seeds = st.integers(0, 2**32 - 1)


def correlated(random, count, width):
    """Inputs that are mixtures of few sources: each says much about the others."""
    sources = random.normal(size=(count, max(1, width // 4)))
    mixed = sources @ random.normal(size=(sources.shape[1], width))
    return mixed + 0.1 * random.normal(size=mixed.shape)


def moment_of(x):
    return x.T @ x / len(x)


def error(x, kernel, rounded):
    """The squared error of the outputs."""
    width = kernel.shape[-1]
    return np.mean((x @ (kernel - rounded).reshape(-1, width)) ** 2)


@given(seeds, st.integers(2, 40), st.integers(1, 8), st.sampled_from([4, 8]))
def test_every_weight_is_on_the_grid(seed, inputs, outputs, bits):
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(inputs, outputs))
    grid = weight_grid(kernel, bits)
    for rounded in (
        nearest(kernel, grid),
        gptq(kernel, grid, moment_of(correlated(random, 64, inputs))),
    ):
        np.testing.assert_array_equal(grid.snap(rounded), rounded)
        assert np.all(np.abs(grid.integers(rounded)) <= 2 ** (bits - 1) - 1)


@given(seeds, st.integers(16, 48), st.integers(8, 16), st.sampled_from([4, 8]))
def test_outputs_change_less_than_with_the_nearest_weights(seed, inputs, outputs, bits):
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(inputs, outputs))
    grid = weight_grid(kernel, bits)
    x = correlated(random, 256, inputs)
    rounded = gptq(kernel, grid, moment_of(x))
    assert error(x, kernel, rounded) < error(x, kernel, nearest(kernel, grid))


def test_other_inputs_of_the_same_kind_gain_too():
    random = np.random.default_rng(0)
    x = correlated(random, 4000, 32)
    kernel = random.normal(size=(32, 16))
    grid = weight_grid(kernel, 4)
    rounded = gptq(kernel, grid, moment_of(x[:2000]))
    unseen = x[2000:]
    assert error(unseen, kernel, rounded) < 0.5 * error(unseen, kernel, nearest(kernel, grid))


@given(seeds, st.integers(1, 24), st.floats(1e-6, 1e6))
def test_inputs_that_say_nothing_of_each_other_leave_the_nearest_weights(seed, inputs, size):
    kernel = np.random.default_rng(seed).normal(size=(inputs, 5))
    grid = weight_grid(kernel)
    found = gptq(kernel, grid, np.eye(inputs) * size)
    np.testing.assert_array_equal(found, nearest(kernel, grid))


@pytest.mark.parametrize("dead", [[3], [0, 1, 2], list(range(8))])
def test_inputs_that_are_always_zero_do_no_harm(dead):
    random = np.random.default_rng(1)
    x = correlated(random, 200, 8)
    x[:, dead] = 0
    kernel = random.normal(size=(8, 4))
    grid = weight_grid(kernel)
    rounded = gptq(kernel, grid, moment_of(x))
    np.testing.assert_array_equal(grid.snap(rounded), rounded)
    assert error(x, kernel, rounded) <= error(x, kernel, nearest(kernel, grid))
    # Nothing is known of them, so nothing but their own rounding counts.
    np.testing.assert_array_equal(rounded[dead], nearest(kernel, grid)[dead])


def test_two_inputs_that_are_one_share_their_error():
    kernel = np.array([[1.0, 0.4, -0.7], [0.3, 1.0, 1.0]])
    grid = weight_grid(kernel, 4)
    rounded = gptq(kernel, grid, np.ones((2, 2)))
    # Only the sum of both weights matters, and it is right to half a step.
    assert np.all(
        np.abs((rounded - kernel).sum(0)) <= grid.scale / 2 + 0.02 * np.abs(kernel).sum(0)
    )
    assert (
        np.abs((rounded - kernel).sum(0)).max()
        < np.abs((nearest(kernel, grid) - kernel).sum(0)).max() + 1e-12
    )


def test_the_kernel_of_a_convolution_keeps_its_shape():
    random = np.random.default_rng(2)
    kernel = random.normal(size=(3, 3, 2, 5))
    grid = weight_grid(kernel, 4)
    x = correlated(random, 300, 18)
    rounded = gptq(kernel, grid, moment_of(x))
    assert rounded.shape == kernel.shape
    flat = gptq(kernel.reshape(18, 5), grid, moment_of(x))
    np.testing.assert_array_equal(rounded.reshape(18, 5), flat)
    assert error(x, kernel, rounded) < error(x, kernel, nearest(kernel, grid))


def test_the_kernel_itself_is_not_changed():
    kernel = np.random.default_rng(3).normal(size=(6, 4))
    before = kernel.copy()
    gptq(kernel, weight_grid(kernel), np.ones((6, 6)))
    np.testing.assert_array_equal(kernel, before)


@given(seeds, st.sampled_from([4, 8]), st.sampled_from([(7, 3), (3, 3, 2, 3)]))
def test_the_grid_of_a_channel_ends_at_its_largest_weight(seed, bits, shape):
    kernel = np.random.default_rng(seed).normal(size=shape) * np.array([1e-3, 1, 1e3])
    grid = weight_grid(kernel, bits)
    assert grid.bits == bits
    assert grid.scale.shape == (3,)
    largest = np.abs(kernel).reshape(-1, 3).max(0)
    np.testing.assert_allclose(grid.largest, largest, rtol=1e-12)
    np.testing.assert_array_equal(grid.smallest, -grid.largest)
    off = np.abs(nearest(kernel, grid) - kernel)
    assert np.all(off <= grid.scale / 2 * (1 + 1e-9))


def test_a_channel_of_zeros_has_a_grid_and_stays_zero():
    kernel = np.array([[0.0, 2.0], [0.0, -1.0]])
    grid = weight_grid(kernel)
    assert np.all(np.isfinite(grid.scale))
    assert np.all(grid.scale > 0)
    for rounded in (nearest(kernel, grid), gptq(kernel, grid, np.eye(2) + 0.5)):
        np.testing.assert_array_equal(rounded[:, 0], 0)
