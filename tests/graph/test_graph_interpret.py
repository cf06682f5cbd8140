"""The reference implementation of each step computes what Keras does."""

import keras
import numpy as np
import pytest

from cct_export.graph import steps
from cct_export.graph.interpret import compute

RANDOM = np.random.default_rng(11)
MAPS = RANDOM.normal(size=(2, 9, 8, 3))
TOKENS = RANDOM.normal(size=(2, 5, 6))


def assert_equal(actual, expected):
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 2), (0, 3))])
@pytest.mark.parametrize("relu", [True, False])
def test_conv(strides, pads, relu):
    kernel, bias = RANDOM.normal(size=(3, 2, 3, 4)), RANDOM.normal(size=4)
    step = steps.Conv("y", ("x",), kernel, bias, strides, pads, relu)
    padded = np.pad(MAPS, ((0, 0), *pads, (0, 0)))
    expected = keras.ops.conv(padded, kernel, strides, padding="valid") + bias
    assert_equal(compute(step, MAPS), keras.ops.relu(expected) if relu else expected)
    assert compute(step, MAPS).shape[1:] == step.shape(MAPS.shape[1:])


@pytest.mark.parametrize("tanh", [True, False])
def test_gelu(tanh):
    expected = keras.ops.gelu(MAPS, approximate=tanh)
    assert_equal(compute(steps.Gelu("y", ("x",), tanh), MAPS), expected)


def test_the_two_gelus_differ():
    tanh, exact = (compute(steps.Gelu("y", ("x",), tanh), MAPS) for tanh in (True, False))
    assert 1e-5 < abs(tanh - exact).max() < 1e-2


def test_layer_norm():
    layer = keras.layers.LayerNormalization(epsilon=1e-3)
    layer.build(TOKENS.shape)
    gamma, beta = RANDOM.normal(size=6), RANDOM.normal(size=6)
    layer.set_weights([gamma, beta])
    assert_equal(compute(steps.LayerNorm("y", ("x",), 1e-3, gamma, beta), TOKENS), layer(TOKENS))


def test_attention():
    heads, size, width = 3, 4, TOKENS.shape[-1]
    layer = keras.layers.MultiHeadAttention(heads, size)
    layer.build(TOKENS.shape, TOKENS.shape)
    arrays = [RANDOM.normal(size=weight.shape) for weight in layer.weights]
    layer.set_weights(arrays)
    query, key, value = (
        steps.Projection(arrays[i].reshape(width, -1), arrays[i + 1].reshape(-1)) for i in (0, 2, 4)
    )
    out = steps.Projection(arrays[6].reshape(-1, width), arrays[7])
    step = steps.Attention("y", ("x",), heads, size**-0.5, query, key, value, out)
    assert_equal(compute(step, TOKENS), layer(TOKENS, TOKENS))


def test_softmax_of_large_values_is_finite():
    weights = compute(steps.Softmax("y", ("x",)), np.array([[1e4, 1e4, -1e4]]))
    np.testing.assert_array_equal(weights, [[0.5, 0.5, 0]])


def test_a_reshape_to_another_size_is_refused():
    with pytest.raises(ValueError, match="cannot become"):
        steps.Reshape("y", ("x",), (4, 4)).shape((3, 5))


def test_a_step_without_implementation_cannot_be_computed():
    with pytest.raises(TypeError, match="Step cannot be computed"):
        compute(steps.Step("y", ("x",)), MAPS)


def test_a_crop_takes_a_range_of_every_axis():
    step = steps.Crop("y", ("x",), (1, 0, 2), (9, 5, 3))
    np.testing.assert_array_equal(compute(step, MAPS), MAPS[:, 1:9, :5, 2:3])
    assert step.shape(MAPS.shape[1:]) == (8, 5, 1)


def test_tensors_are_put_side_by_side_along_the_last_axis():
    step = steps.Concat("y", ("a", "b", "c"))
    parts = [MAPS, MAPS[..., :1], -MAPS]
    np.testing.assert_array_equal(compute(step, *parts), np.concatenate(parts, 3))
    assert step.shape(*(part.shape[1:] for part in parts)) == (9, 8, 7)


def test_a_constant_matrix_multiplies_the_last_two_axes():
    matrix = RANDOM.normal(size=(5, 8))
    step = steps.ConstantMatMul("y", ("x",), matrix)
    assert_equal(compute(step, MAPS), np.einsum("ij,bhjc->bhic", matrix, MAPS))
    assert step.shape(MAPS.shape[1:]) == (9, 5, 3)
    assert step.macs(MAPS.shape[1:]) == 9 * 5 * 8 * 3
