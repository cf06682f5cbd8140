"""Plans of the paper's models: folds are exact, and which of them are worth it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plans import (
    EXACT,
    assert_same,
    check_folds,
    of_kind,
    random_images,
    random_model,
    random_plan,
)

from cct_export.errors import InvalidModel
from cct_export.graph import steps
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.lower import lower
from cct_export.graph.quantized import evaluate
from cct_export.graph.steps import Attention, LayerNorm
from cct_export.model.cct import CCT
from cct_export.model.presets import PRESETS, preset
from cct_export.model.sizes import token_grid
from cct_export.specs import ModelSpec

SMALL = ModelSpec(
    name="paper", block="paper", filters=(6, 16), padding=1, layers=2, heads=4, head_dim=4,
    mlp_units=(32, 16), mean=(0.5, 0.4, 0.6), std=(0.2, 0.3, 0.25),
)  # fmt: skip
SIZES = {"cct_2_3x2_32", "cct_6_3x1_32", "cct_7_7x2_224"}


@st.composite
def paper_specs(draw):
    """Small architectures of the paper's kind."""
    heads, size = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    assume(heads * size > 1)  # the norm of a single value is what rounding leaves of it
    width, channels = heads * size, draw(st.sampled_from([1, 3]))
    mean = draw(st.sampled_from([(), (0.5, 0.4, 0.6)]))
    std = draw(st.sampled_from([(), (0.2, 0.3, 0.25)]))
    spec = ModelSpec(
        name="random",
        block="paper",
        image_size=draw(st.integers(7, 24)),
        channels=channels,
        classes=draw(st.integers(2, 7)),
        filters=(*draw(st.lists(st.integers(1, 8), max_size=1)), width),
        kernel=draw(st.sampled_from([3, 5, 7])),
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 3)),
        layers=draw(st.integers(0, 2)),
        heads=heads,
        head_dim=size,
        mlp_units=(draw(st.integers(1, 20)), width),
        activation=draw(st.sampled_from(["gelu", "relu"])),
        positional=draw(st.sampled_from(["learnable", "sine", "none"])),
        mean=mean[:channels],
        std=std[:channels],
    )
    try:
        token_grid(spec)
    except InvalidModel:
        assume(False)
    return spec


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
@settings(max_examples=8, deadline=None)
@given(paper_specs(), st.integers(0, 2**16))
def test_plans_of_any_paper_model_give_the_logits_of_keras_however_they_are_folded(spec, seed):
    check_folds(random_model(spec, seed))


@pytest.mark.parametrize("positional", ["learnable", "sine", "none"])
@pytest.mark.parametrize("name", PASSES)
def test_leaving_a_fold_out_changes_no_logit(name, positional):
    plan = random_plan(replace(SMALL, positional=positional), seed=5)
    images = random_images(plan, 4)
    assert_same(evaluate(fold(plan, [name]), images), evaluate(plan, images), EXACT)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_heads_that_share_the_width_are_fused_and_not_merged(name):
    plan = lower(CCT(replace(preset(name), layers=2)))
    folded = fold(plan)
    for attention in of_kind(folded, Attention):
        assert attention.key is not None
        assert attention.value is not None
        assert attention.fused
        assert attention.scale == 1
    for merge in ("query-key", "value-output"):
        assert PASSES[merge](plan).total_macs == plan.total_macs
    assert folded.total_macs == plan.total_macs


def test_no_preset_of_the_paper_gains_by_merging():
    """Per token and head d(d + n) against k(2d + n) multiplications, with k = d / heads."""
    for name, spec in PRESETS.items():
        rows, columns = token_grid(spec)
        tokens, width, size = rows * columns, spec.width, spec.head_dim
        merging = width * (width + tokens) < size * (2 * width + tokens)
        assert merging == (name == "cct_keras_io"), name


def test_only_the_beta_of_the_norm_gives_attention_a_bias():
    plan = random_plan(SMALL)
    for attention in of_kind(plan, Attention):
        parts = (attention.query, attention.key, attention.value)
        assert not any(np.any(part.bias) for part in parts)
        assert np.any(attention.out.bias)
    for attention in of_kind(fold(plan), Attention):
        assert np.any(attention.query.bias), "it absorbs the beta of the norm"
        assert not np.any(attention.key.bias)
        assert not np.any(attention.value.bias)


def test_only_norms_on_the_residual_stream_keep_gamma_and_beta():
    folded = fold(random_plan(SMALL))
    affine = {norm.output for norm in of_kind(folded, LayerNorm) if norm.gamma is not None}
    assert affine == {"block_0/mlp_norm", "block_1/mlp_norm"}


def test_pixel_normalization_leaves_a_shift_where_the_convolution_pads():
    plan = random_plan(SMALL)
    first, conv = fold(plan).steps[:2]
    assert isinstance(first, steps.AddConstant)
    assert first.value == pytest.approx([-0.5 * 255, -0.4 * 255, -0.6 * 255])
    assert conv.kernel == pytest.approx(
        plan.steps[1].kernel / (255 * np.array([0.2, 0.3, 0.25]))[:, None]
    )
    unpadded = fold(random_plan(replace(SMALL, padding=0)))
    assert isinstance(unpadded.steps[0], steps.Conv), "without padding it becomes a bias"
    assert np.any(unpadded.steps[0].bias)


def test_the_zeros_before_a_pool_become_its_padding():
    folded = fold(random_plan(SMALL))
    assert not of_kind(folded, steps.ZeroPad)
    assert [pool.pads for pool in of_kind(folded, steps.MaxPool)] == [((1, 1), (1, 1))] * 2


def test_gelu_is_exact_and_does_not_follow_the_second_dense_layer():
    plan = lower(CCT(SMALL))
    assert [gelu.tanh for gelu in of_kind(plan, steps.Gelu)] == [False, False]
    names = [step.output for step in plan.steps]
    assert names[names.index("block_0/mlp_1") + 1] == "block_0/mlp_sum"


def test_every_norm_has_the_epsilon_of_the_paper():
    plan = lower(CCT(SMALL))
    assert {norm.epsilon for norm in of_kind(plan, LayerNorm)} == {1e-5}
    assert len(of_kind(plan, LayerNorm)) == 2 * SMALL.layers + 1
