"""Every fold is exact, alone and with the others, and saves what its name says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import (
    EXACT,
    assert_same,
    check_folds,
    of_kind,
    random_images,
    random_model,
    random_plan,
    specs,
)

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.lower import lower
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.graph.steps import Attention, SequencePool
from cct_export.specs import ModelSpec

WIDE_HEADS = ModelSpec(filters=(6, 16), mlp_units=(16, 16), heads=2, head_dim=16, layers=2)
# As in the paper: the heads share the width.
SMALL_HEADS = replace(WIDE_HEADS, heads=4, head_dim=4)
CASES = {"wide heads": WIDE_HEADS, "small heads": SMALL_HEADS}


def kinds(plan):
    return [step.kind for step in plan.steps]


@settings(max_examples=8, deadline=None)
@given(specs(), st.integers(0, 2**16))
def test_plans_of_any_architecture_give_the_logits_of_keras_however_they_are_folded(spec, seed):
    check_folds(random_model(spec, seed))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PASSES)
def test_a_fold_is_exact_alone(case, name):
    plan = random_plan(CASES[case], seed=5)
    images = random_images(plan, 8)
    assert_same(evaluate(PASSES[name](plan), images), evaluate(plan, images), EXACT)


@pytest.mark.parametrize("name", PASSES)
def test_the_docstring_of_a_fold_has_a_summary_and_a_proof(name):
    summary, _, proof = PASSES[name].__doc__.partition("\n\n")
    assert summary.endswith(".")
    assert len(proof) > 80


def before_and_after(name):
    """Returns a plan without any fold, and with one."""
    plan = random_plan(WIDE_HEADS)
    return plan, PASSES[name](plan)


def test_rescaling_needs_no_step_after_its_fold():
    before, after = before_and_after("rescaling")
    assert "Scale" in kinds(before)
    assert "Scale" not in kinds(after)
    assert len(after.steps) == len(before.steps) - 1


def test_pools_take_over_their_zero_padding():
    before, after = before_and_after("pool-padding")
    assert kinds(before).count("ZeroPad") == 2
    assert "ZeroPad" not in kinds(after)
    assert of_kind(after, steps.MaxPool)[0].pads == ((1, 2), (1, 2))


def test_norm_affine_leaves_norms_without_gamma_and_beta():
    before, after = before_and_after("norm-affine")
    assert sum(norm.gamma is not None for norm in of_kind(before, steps.LayerNorm)) == 5
    assert all(n.gamma is None and n.beta is None for n in of_kind(after, steps.LayerNorm))


def test_query_scale_leaves_scores_without_a_scale():
    _, after = before_and_after("query-scale")
    assert [step.scale for step in of_kind(after, Attention)] == [1, 1]


@pytest.mark.parametrize(("name", "part"), [("key-bias", "key"), ("value-bias", "value")])
def test_a_folded_bias_is_zero(name, part):
    before, after = before_and_after(name)
    assert all(np.any(getattr(step, part).bias) for step in of_kind(before, Attention))
    assert not any(np.any(getattr(step, part).bias) for step in of_kind(after, Attention))


@pytest.mark.parametrize(("name", "part"), [("query-key", "key"), ("value-output", "value")])
def test_merging_a_projection_saves_its_multiplications(name, part):
    before, after = before_and_after(name)
    assert all(getattr(step, part) is None for step in of_kind(after, Attention))
    # Per token and head: d(d + n) in place of k(2d + n).
    tokens, width, size, heads = 64, 16, 16, 2
    saved = tokens * heads * (size * (2 * width + tokens) - width * (width + tokens))
    assert before.total_macs - after.total_macs == 2 * saved > 0


@pytest.mark.parametrize("name", ["query-key", "value-output"])
def test_projections_do_not_merge_where_that_costs_multiplications(name):
    plan = random_plan(SMALL_HEADS)
    assert PASSES[name](plan).total_macs == plan.total_macs
    assert all(step.key and step.value for step in of_kind(PASSES[name](plan), Attention))


@pytest.mark.parametrize("head_dim", [1, 8, 13, 14, 16])
def test_projections_merge_exactly_where_that_saves_multiplications(head_dim):
    width, tokens = 16, 64
    plan = fold(random_plan(replace(WIDE_HEADS, head_dim=head_dim, layers=1)))
    (attention,) = of_kind(plan, Attention)
    merged = width * (width + tokens) < head_dim * (2 * width + tokens)
    assert (attention.key is None) == (attention.value is None) == merged
    assert attention.fused == (not merged)


def test_projections_that_do_not_merge_are_fused():
    plan = expand(fold(random_plan(SMALL_HEADS)))
    assert "block_0/attention/qkv" in plan.shapes
    assert plan.shapes["block_0/attention/qkv"] == (64, 48)
    assert kinds(plan).count("Slice") == 6


def test_merged_heads_need_no_transposition():
    assert "Transpose" not in kinds(expand(fold(random_plan(WIDE_HEADS))))
    assert kinds(expand(fold(random_plan(SMALL_HEADS)))).count("Transpose") == 8


def test_pooling_has_no_bias_after_its_fold():
    before, after = before_and_after("pooling-bias")
    assert of_kind(before, SequencePool)[0].bias is not None
    assert of_kind(after, SequencePool)[0].bias is None


def test_the_keras_io_model_loses_a_third_of_its_parameters_and_a_fifth_of_its_macs():
    plan = lower(cct_export.load("cct_keras_io").model)
    folded = fold(plan)
    assert (plan.parameters, plan.total_macs) == (416_333, 41_189_376)
    assert (folded.parameters, folded.total_macs) == (282_954, 32_800_768)


def test_an_unknown_fold_is_refused_with_the_names_of_all():
    plan = random_plan(replace(WIDE_HEADS, layers=0))
    with pytest.raises(InvalidRequest) as raised:
        fold(plan, ["query-scale", "magic"])
    assert str(raised.value) == f"no fold is called 'magic': choose from {', '.join(PASSES)}"


floats = st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-3)


@settings(max_examples=60, deadline=None)
@given(
    pads=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    scale=st.lists(floats, min_size=2, max_size=2),
    shift=st.lists(floats, min_size=2, max_size=2),
    has_bias=st.booleans(),
    relu=st.booleans(),
)
def test_a_scale_and_a_shift_fold_into_a_convolution_padded_or_not(
    pads, strides, scale, shift, has_bias, relu
):
    random = np.random.default_rng(7)
    bias = random.normal(size=3) if has_bias else None
    plan = Plan(
        (7, 6, 2),
        (
            steps.Scale("s", ("image",), np.array(scale), np.array(shift)),
            steps.Conv("c", ("s",), random.normal(size=(3, 2, 2, 3)), bias, strides, pads, relu),
        ),
    )
    folded = PASSES["rescaling"](plan)
    images = random_images(plan)
    assert_same(evaluate(folded, images), evaluate(plan, images), EXACT)
    if all(scale):
        assert "Scale" not in kinds(folded)
        shifted = any(shift) and pads != steps.NO_PADS
        assert ("AddConstant" in kinds(folded)) == shifted


@settings(max_examples=60, deadline=None)
@given(
    zeros=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
    pads=st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 1))] * 2),
    size=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    relu=st.booleans(),
)
def test_zero_padding_folds_into_a_pool_only_after_relu_and_if_every_window_covers_a_value(
    zeros, pads, size, strides, relu
):
    kernel = np.random.default_rng(3).normal(size=(1, 1, 2, 3)) / 255
    bias = np.full(3, -0.5)
    plan = Plan(
        (6, 5, 2),
        (
            steps.Conv("c", ("image",), kernel, bias, relu=relu),
            steps.ZeroPad("z", ("c",), zeros),
            steps.MaxPool("p", ("z",), size, strides, pads),
        ),
    )
    folded = PASSES["pool-padding"](plan)
    images = random_images(plan)
    np.testing.assert_array_equal(evaluate(folded, images), evaluate(plan, images))
    if not relu:
        assert "ZeroPad" in kinds(folded)


def test_a_norm_with_a_residual_sum_as_consumer_keeps_gamma_and_beta():
    random = np.random.default_rng(2)

    def array(*shape):
        return random.normal(size=shape)

    plan = Plan(
        (4, 2, 8),
        (
            steps.Reshape("x", ("image",), (8, 8)),
            steps.LayerNorm("n", ("x",), 1e-5, array(8), array(8)),
            steps.Dense("d", ("n",), array(8, 8), array(8)),
            steps.Add("s", ("n", "d")),
        ),
    )
    folded = PASSES["norm-affine"](plan)
    assert folded.steps[1].gamma is not None
    images = random_images(plan)
    assert_same(evaluate(folded, images), evaluate(plan, images), EXACT)


@pytest.mark.parametrize("gamma", [True, False])
@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_gamma_or_beta_alone_folds_into_a_dense_layer_with_or_without_bias(gamma, beta, bias):
    random = np.random.default_rng(2)
    plan = Plan(
        (4, 2, 8),
        (
            steps.LayerNorm(
                "n",
                ("image",),
                1e-5,
                random.normal(size=8) if gamma else None,
                random.normal(size=8) if beta else None,
            ),
            steps.Dense(
                "d", ("n",), random.normal(size=(8, 5)), random.normal(size=5) if bias else None
            ),
        ),
    )
    folded = PASSES["norm-affine"](plan)
    assert folded.steps[0].gamma is folded.steps[0].beta is None
    images = random_images(plan)
    assert_same(evaluate(folded, images), evaluate(plan, images), EXACT)


def test_folding_is_exact_if_the_pooled_tokens_are_the_output():
    random = np.random.default_rng(2)
    plan = Plan(
        (4, 2, 8),
        (
            steps.Reshape("x", ("image",), (8, 8)),
            steps.LayerNorm("n", ("x",), 1e-5, random.normal(size=8), random.normal(size=8)),
            SequencePool("p", ("n",), random.normal(size=8)),
        ),
    )
    images = random_images(plan)
    assert_same(evaluate(PASSES["norm-affine"](plan), images), evaluate(plan, images), EXACT)
