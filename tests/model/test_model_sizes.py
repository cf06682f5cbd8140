"""Tokens and parameters of a CCT, computed without building it, against built models."""

from dataclasses import replace

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cct_export.errors import InvalidModel
from cct_export.model.cct import CCT
from cct_export.model.layers import ConvTokenizer
from cct_export.model.presets import preset
from cct_export.model.sizes import parameter_count, stage_sides, token_grid
from cct_export.specs import ModelSpec

SMALL = preset("cct_2_3x2_32")


@pytest.mark.parametrize(
    "spec",
    [
        preset("cct_keras_io"),
        replace(preset("cct_keras_io"), head_dim=48, mlp_units=(32, 64, 128), channels=1),
        SMALL,
        replace(SMALL, positional="sine", image_size=45, classes=3),
        replace(SMALL, positional="none", layers=3, mlp_units=(200, 128)),
    ],
)
def test_a_cct_has_the_computed_number_of_parameters(spec):
    assert parameter_count(spec) == CCT(spec).count_params()


@settings(deadline=None, max_examples=80)
@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    stages=st.integers(1, 3),
    block=st.sampled_from(["keras", "paper"]),
)
def test_the_token_grid_is_that_of_the_tokenizer_or_the_size_is_refused(
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


def test_the_sides_of_another_image_size_are_those_of_a_resized_spec():
    spec = preset("cct_7_7x2_224")
    assert stage_sides(spec, 160) == stage_sides(replace(spec, image_size=160))
