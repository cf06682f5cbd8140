"""Other image sizes: the architecture, and its interpolated position embeddings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.errors import InvalidModel
from cct_export.model.adapting import interpolate_positions, with_image_size
from cct_export.model.presets import PRESETS, preset

sides = st.integers(1, 9)


def test_an_image_smaller_than_the_kernel_is_refused_with_the_stage():
    with pytest.raises(InvalidModel) as refused:
        with_image_size(preset("cct_keras_io"), 3)
    assert str(refused.value) == (
        "images of 3×3 are too small for cct_keras_io: convolution 2 of 2 looks at 3 pixels each "
        "way and gets 2"
    )
    with pytest.raises(InvalidModel, match="images of 0 pixels: give a size of 1 or more"):
        with_image_size(preset("cct_2_3x2_32"), 0)


def test_another_image_size_changes_nothing_else():
    for spec in PRESETS.values():
        resized = with_image_size(spec, 64)
        assert resized.to_dict() == spec.to_dict() | {"image_size": 64}


@settings(deadline=None)
@given(rows=sides, columns=sides, new_rows=sides, new_columns=sides)
def test_interpolation_is_that_of_tensorflow(rows, columns, new_rows, new_columns):
    import tensorflow as tf

    table = np.random.default_rng(rows).normal(size=(rows * columns, 5))
    resized = interpolate_positions(table, (rows, columns), (new_rows, new_columns))
    image = table.reshape(1, rows, columns, 5).astype(np.float32)
    expected = tf.image.resize(image, (new_rows, new_columns), "bilinear", antialias=False)
    np.testing.assert_allclose(resized, np.asarray(expected).reshape(-1, 5), rtol=1e-5, atol=1e-5)


@given(rows=sides, columns=sides, new_rows=sides, new_columns=sides, value=st.floats(-5, 5))
def test_a_constant_table_stays_constant(rows, columns, new_rows, new_columns, value):
    table = np.full((rows * columns, 2), value)
    np.testing.assert_allclose(
        interpolate_positions(table, (rows, columns), (new_rows, new_columns)), value, atol=1e-12
    )


def test_doubling_a_grid_gives_values_computed_by_hand():
    table = np.array([[0.0], [1.0]])
    resized = interpolate_positions(table, (1, 2), (1, 4))
    assert resized.ravel().tolist() == [0, 0.25, 0.75, 1]
    assert interpolate_positions(table, (2, 1), (4, 1)).ravel().tolist() == [0, 0.25, 0.75, 1]
    assert interpolate_positions(resized, (1, 4), (1, 2)).ravel().tolist() == [0.125, 0.875]


def test_the_same_grid_gives_the_table_unchanged():
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    resized = interpolate_positions(table, (2, 3), (2, 3))
    assert resized.dtype == np.float64
    assert np.array_equal(resized.astype(np.float32), table)


@pytest.mark.parametrize("shape", [(5, 4), (6,), (1, 6, 4)])
def test_a_table_of_another_grid_is_refused(shape):
    with pytest.raises(InvalidModel, match=r"of shape \(.*\) is not one of 2×3 tokens"):
        interpolate_positions(np.zeros(shape), (2, 3), (3, 3))
