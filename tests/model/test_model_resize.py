"""Token grids, and position embeddings for other grids."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.errors import InvalidModel
from cct_export.model.layers import ConvTokenizer
from cct_export.model.presets import PRESETS, preset
from cct_export.model.resize import at_size, positions, token_grid
from cct_export.specs import ModelSpec

sides = st.integers(1, 9)


@settings(deadline=None, max_examples=80)
@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    stages=st.integers(1, 3),
    block=st.sampled_from(["keras", "paper"]),
)
def test_the_grid_is_that_of_the_tokenizer_or_the_size_is_refused(
    size, kernel, stride, padding, stages, block
):
    filters = (4,) * stages
    spec = ModelSpec(
        image_size=size, filters=filters, kernel=kernel, stride=stride, padding=padding,
        block=block, heads=1, head_dim=4, mlp_units=(4,),
    )  # fmt: skip
    tokenizer = ConvTokenizer(filters, kernel, stride, padding, block)
    try:
        rows, columns = token_grid(spec)
    except InvalidModel as refused:
        assert f"images of {size}×{size} are too small" in str(refused)
        with pytest.raises(ValueError, match=r"."):
            tokenizer(keras.ops.zeros((1, size, size, 3)))
        return
    assert tokenizer(keras.ops.zeros((1, size, size, 3))).shape == (1, rows * columns, 4)


@pytest.mark.parametrize(
    ("name", "side"),
    [("cct_keras_io", 8), ("cct_2_3x2_32", 8), ("cct_7_3x1_32", 16), ("cct_7_7x2_224", 14),
     ("cct_14_7x2_224", 14), ("cct_14_7x2_384", 24)],
)  # fmt: skip
def test_the_presets_have_the_tokens_of_the_paper(name, side):
    assert token_grid(preset(name)) == (side, side)


def test_an_image_smaller_than_the_kernel_is_refused_with_the_stage():
    with pytest.raises(InvalidModel) as refused:
        at_size(preset("cct_keras_io"), 3)
    assert str(refused.value) == (
        "images of 3×3 are too small for cct_keras_io: convolution 2 of 2 looks at 3 pixels each "
        "way and gets 2"
    )
    with pytest.raises(InvalidModel, match="images of 0 pixels: give a size of 1 or more"):
        at_size(preset("cct_2_3x2_32"), 0)


def test_another_size_changes_nothing_else():
    for spec in PRESETS.values():
        resized = at_size(spec, 64)
        assert resized.to_dict() == spec.to_dict() | {"image_size": 64}


@settings(deadline=None)
@given(rows=sides, columns=sides, new_rows=sides, new_columns=sides)
def test_interpolation_is_that_of_tensorflow(rows, columns, new_rows, new_columns):
    import tensorflow as tf

    table = np.random.default_rng(rows).normal(size=(rows * columns, 5))
    found = positions(table, (rows, columns), (new_rows, new_columns))
    image = table.reshape(1, rows, columns, 5).astype(np.float32)
    wanted = tf.image.resize(image, (new_rows, new_columns), "bilinear", antialias=False)
    np.testing.assert_allclose(found, np.asarray(wanted).reshape(-1, 5), rtol=1e-5, atol=1e-5)


@given(rows=sides, columns=sides, new_rows=sides, new_columns=sides, value=st.floats(-5, 5))
def test_what_is_the_same_everywhere_stays_so(rows, columns, new_rows, new_columns, value):
    table = np.full((rows * columns, 2), value)
    np.testing.assert_allclose(
        positions(table, (rows, columns), (new_rows, new_columns)), value, atol=1e-12
    )


def test_twice_the_grid_by_hand():
    table = np.array([[0.0], [1.0]])
    found = positions(table, (1, 2), (1, 4))
    assert found.ravel().tolist() == [0, 0.25, 0.75, 1]
    assert positions(table, (2, 1), (4, 1)).ravel().tolist() == [0, 0.25, 0.75, 1]
    assert positions(found, (1, 4), (1, 2)).ravel().tolist() == [0.125, 0.875]


def test_the_same_grid_gives_the_table_as_it_is():
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = positions(table, (2, 3), (2, 3))
    assert found.dtype == np.float64
    assert np.array_equal(found.astype(np.float32), table)


@pytest.mark.parametrize("shape", [(5, 4), (6,), (1, 6, 4)])
def test_a_table_of_another_grid_is_refused(shape):
    with pytest.raises(InvalidModel, match=r"of shape \(.*\) is not one of 2×3 tokens"):
        positions(np.zeros(shape), (2, 3), (3, 3))
