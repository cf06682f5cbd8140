"""The centred residual stream, and normalizations expanded to primitive steps."""

import numpy as np
import pytest
from plans import EXACT, assert_same, of_kind, random_images, random_plan, tensors_of

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import PASSES
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.specs import ModelSpec

SPEC = ModelSpec(filters=(6, 16), mlp_units=(24, 16), heads=2, head_dim=8, layers=2)
centre = PASSES["centred-residual"]


def largest_mean(x):
    """Returns the largest mean over the width, relative to the largest value."""
    return np.abs(x.mean(-1)).max() / np.abs(x).max()


def test_every_norm_of_a_transformer_is_centred():
    plan = random_plan(SPEC)
    assert not any(norm.centred for norm in of_kind(plan, steps.LayerNorm))
    norms = of_kind(centre(plan), steps.LayerNorm)
    assert len(norms) == 5
    assert all(norm.centred for norm in norms)


def test_centring_leaves_three_of_five_subtractions():
    plan = random_plan(SPEC)
    original = expand(plan, layer_norm=False)
    centred = expand(centre(plan), layer_norm=False)
    assert len(of_kind(original, steps.Subtract)) == 5
    # Tokens and the GELU at the end of each MLP have no weights of their own to centre.
    assert len(of_kind(centred, steps.Subtract)) == 3
    assert len(of_kind(centred, steps.Rsqrt)) == 5


def test_tokens_and_gelus_are_centred_by_a_step_and_everything_else_in_its_weights():
    plan = centre(random_plan(SPEC))
    images = random_images(plan)
    tensors = tensors_of(plan, images)
    subtractions = of_kind(plan, steps.Subtract)
    assert [step.output for step in subtractions] == [
        "tokenizer/tokens",
        "block_0/gelu_1",
        "block_1/gelu_1",
    ]
    for step in subtractions:
        assert largest_mean(tensors[step.inputs[0]]) > 1e-3
        assert largest_mean(tensors[step.output]) < EXACT
    sums = of_kind(plan, steps.Add | steps.AddConstant)
    assert len(sums) == 5
    for step in sums:
        assert largest_mean(tensors[step.output]) < EXACT
        for name in step.inputs:
            assert largest_mean(tensors[name]) < EXACT


def test_without_centring_the_residual_stream_has_a_mean():
    plan = random_plan(SPEC)
    tensors = tensors_of(plan, random_images(plan))
    for norm in of_kind(plan, steps.LayerNorm):
        assert largest_mean(tensors[norm.inputs[0]]) > 1e-3


def test_centring_adds_no_parameter_and_no_multiplication():
    plan = random_plan(SPEC)
    centred = centre(plan)
    assert (centred.parameters, centred.total_macs) == (plan.parameters, plan.total_macs)


def array(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def norm(output, name):
    return steps.LayerNorm(output, (name,), 1e-5)


def dense(output, name, bias=True):
    return steps.Dense(output, (name,), array(8, 8), array(8) if bias else None)


def is_centred(*tail):
    """Returns whether the fold changes a plan of these steps on tokens; the logits must not."""
    plan = Plan((4, 2, 8), (steps.Reshape("x", ("image",), (8, 8)), *tail))
    images = random_images(plan)
    centred = centre(plan)
    assert_same(evaluate(centred, images), evaluate(plan, images), EXACT)
    return centred.steps != plan.steps


def test_one_norm_of_a_tensor_without_weights_is_left_alone():
    assert not is_centred(norm("n", "x"), dense("logits", "n"))


def test_two_norms_of_a_tensor_without_weights_save_one_subtraction():
    assert is_centred(norm("n", "x"), norm("m", "x"), steps.Add("logits", ("n", "m")))


def test_one_norm_of_a_dense_layer_saves_its_subtraction():
    assert is_centred(dense("d", "x"), norm("n", "d"), dense("logits", "n"))


def test_a_plan_without_norms_is_left_alone():
    assert not is_centred(dense("d", "x"), steps.Gelu("logits", ("d",), False))


@pytest.mark.parametrize("consumer", ["gelu", "dense", "output"])
def test_a_stream_with_another_consumer_is_left_alone(consumer):
    others = {
        "gelu": (steps.Gelu("g", ("d",), False), steps.Add("logits", ("n", "g"))),
        "dense": (dense("e", "d"), steps.Add("logits", ("n", "e"))),
        "output": (steps.Add("logits", ("n", "d")),),
    }
    assert not is_centred(dense("d", "x"), norm("n", "d"), *others[consumer])


def test_a_sum_is_left_alone_if_an_addend_has_another_consumer():
    assert not is_centred(
        dense("d", "x"),
        dense("e", "x"),
        steps.Add("s", ("d", "e")),
        norm("n", "s"),
        steps.Gelu("g", ("e",), False),
        steps.Add("logits", ("n", "g")),
    )


@pytest.mark.parametrize("bias", [True, False])
def test_weights_without_bias_are_centred_exactly(bias):
    is_centred(
        dense("d", "x", bias),
        steps.AddConstant("c", ("d",), array(8, 8)),
        norm("n", "c"),
        norm("m", "c"),
        steps.Add("logits", ("n", "m")),
    )


@pytest.mark.parametrize("gamma", [True, False])
@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_a_norm_expands_exactly_with_any_of_its_parts(gamma, beta, centred):
    norm = steps.LayerNorm(
        "logits", ("image",), 1e-3, array(8) if gamma else None, array(8) if beta else None, centred
    )
    plan = Plan((4, 2, 8), (norm,))
    expanded = expand(plan, layer_norm=False)
    images = random_images(plan)
    assert_same(evaluate(expanded, images), evaluate(plan, images), EXACT)
    assert bool(of_kind(expanded, steps.Subtract)) == (not centred)
    assert expanded.output == "logits"


def test_a_norm_stays_where_the_format_has_the_operator():
    plan = random_plan(SPEC)
    assert len(of_kind(expand(plan), steps.LayerNorm)) == 5
