"""The residual stream is centred once, exactly, and normalizations are spelled out exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import assert_same, random_images, random_plan, specs

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.interpret import interpret
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import tensors
from cct_export.specs import ModelSpec

EXACT = 1e-10
SPEC = ModelSpec(filters=(6, 16), mlp_units=(24, 16), heads=2, head_dim=8, layers=2)
centre = PASSES["centred-residual"]


def of_kind(plan, kind):
    return [step for step in plan.steps if type(step) is kind]


def held(plan, images):
    found = {}
    tensors(plan, images, found.__setitem__)
    return found


def largest_mean(x):
    """Returns the largest mean over the width, relative to the largest value."""
    return np.abs(x.mean(-1)).max() / np.abs(x).max()


@settings(max_examples=15, deadline=None)
@given(specs(), st.integers(0, 2**16))
def test_a_centred_plan_is_equal_and_what_its_normalizations_read_has_no_mean(spec, seed):
    plan = fold(random_plan(spec, seed), ["centred-residual"])
    images = random_images(plan)
    centred = centre(plan)
    assert_same(interpret(centred, images), interpret(plan, images), EXACT)
    values = held(centred, images)
    for norm in of_kind(centred, steps.LayerNorm):
        if norm.centred:
            x = values[norm.inputs[0]]
            # Relative to what the sum is made of, not to a sum that may be nearly nothing.
            assert np.abs(x.mean(-1)).max() <= EXACT * max(1, np.abs(x).max())


@settings(max_examples=15, deadline=None)
@given(specs(), st.integers(0, 2**16), st.booleans())
def test_normalization_spelled_out_is_equal(spec, seed, folded):
    plan = random_plan(spec, seed)
    images = random_images(plan)
    wanted = interpret(plan, images)
    spelled = expand(fold(plan) if folded else plan, normalization=False)
    assert not of_kind(spelled, steps.LayerNorm)
    assert_same(interpret(spelled, images), wanted, EXACT)


def test_every_norm_of_a_transformer_is_centred():
    plan = random_plan(SPEC)
    assert not any(norm.centred for norm in of_kind(plan, steps.LayerNorm))
    norms = of_kind(centre(plan), steps.LayerNorm)
    assert len(norms) == 5
    assert all(norm.centred for norm in norms)


def test_three_subtractions_are_left_where_five_were():
    plan = random_plan(SPEC)
    apart = expand(plan, normalization=False)
    together = expand(centre(plan), normalization=False)
    assert len(of_kind(apart, steps.Mean)) == len(of_kind(apart, steps.Subtract)) == 5
    # Tokens and the GELU at the end of each MLP have no weights of their own to centre.
    assert len(of_kind(together, steps.Mean)) == len(of_kind(together, steps.Subtract)) == 3
    assert len(of_kind(together, steps.Rsqrt)) == 5


def test_tokens_and_gelus_are_centred_by_a_step_and_all_else_at_its_source():
    plan = centre(random_plan(SPEC))
    images = random_images(plan)
    values = held(plan, images)
    subtracted = of_kind(plan, steps.Subtract)
    assert [step.output for step in subtracted] == [
        "tokenizer/tokens",
        "block_0/gelu_1",
        "block_1/gelu_1",
    ]
    for step in subtracted:
        assert largest_mean(values[step.inputs[0]]) > 1e-3
        assert largest_mean(values[step.output]) < EXACT
    sums = [step for step in plan.steps if isinstance(step, steps.Add | steps.AddConstant)]
    assert len(sums) == 5
    for step in sums:
        assert largest_mean(values[step.output]) < EXACT
        for name in step.inputs:
            assert largest_mean(values[name]) < EXACT


def test_the_streams_had_a_mean_before():
    plan = random_plan(SPEC)
    values = held(plan, random_images(plan))
    for norm in of_kind(plan, steps.LayerNorm):
        assert largest_mean(values[norm.inputs[0]]) > 1e-3


def test_no_parameter_and_no_product_is_added():
    plan = random_plan(SPEC)
    centred = centre(plan)
    assert (centred.parameters, centred.total_macs) == (plan.parameters, plan.total_macs)


def array(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def normalize(output, name):
    return steps.LayerNorm(output, (name,), 1e-5)


def dense(output, name, bias=True):
    return steps.Dense(output, (name,), array(8, 8), array(8) if bias else None)


def check(*made):
    """Returns whether these steps on tokens are changed; what comes out must be equal."""
    plan = Plan((4, 2, 8), (steps.Reshape("x", ("image",), (8, 8)), *made))
    images = random_images(plan)
    centred = centre(plan)
    assert_same(interpret(centred, images), interpret(plan, images), EXACT)
    return centred.steps != plan.steps


def test_one_norm_of_what_no_weights_made_saves_nothing():
    assert not check(normalize("n", "x"), dense("logits", "n"))


def test_two_norms_of_it_save_one_subtraction():
    assert check(normalize("n", "x"), normalize("m", "x"), steps.Add("logits", ("n", "m")))


def test_one_norm_of_what_weights_made_saves_its_subtraction():
    assert check(dense("d", "x"), normalize("n", "d"), dense("logits", "n"))


def test_a_plan_without_norms_is_left_alone():
    assert not check(dense("d", "x"), steps.Gelu("logits", ("d",), False))


@pytest.mark.parametrize("reader", ["gelu", "dense", "output"])
def test_a_stream_that_something_else_reads_is_left_alone(reader):
    others = {
        "gelu": (steps.Gelu("g", ("d",), False), steps.Add("logits", ("n", "g"))),
        "dense": (dense("e", "d"), steps.Add("logits", ("n", "e"))),
        "output": (steps.Add("logits", ("n", "d")),),
    }
    assert not check(dense("d", "x"), normalize("n", "d"), *others[reader])


def test_a_sum_is_left_alone_if_one_part_of_it_is_read_elsewhere():
    assert not check(
        dense("d", "x"),
        dense("e", "x"),
        steps.Add("s", ("d", "e")),
        normalize("n", "s"),
        steps.Gelu("g", ("e",), False),
        steps.Add("logits", ("n", "g")),
    )


@pytest.mark.parametrize("bias", [True, False])
def test_weights_without_bias_are_centred_exactly_too(bias):
    check(
        dense("d", "x", bias),
        steps.AddConstant("c", ("d",), array(8, 8)),
        normalize("n", "c"),
        normalize("m", "c"),
        steps.Add("logits", ("n", "m")),
    )


@pytest.mark.parametrize("gamma", [True, False])
@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_a_norm_is_spelled_out_with_any_of_its_parts(gamma, beta, centred):
    norm = steps.LayerNorm(
        "logits", ("image",), 1e-3, array(8) if gamma else None, array(8) if beta else None, centred
    )
    plan = Plan((4, 2, 8), (norm,))
    spelled = expand(plan, normalization=False)
    images = random_images(plan)
    assert_same(interpret(spelled, images), interpret(plan, images), EXACT)
    assert bool(of_kind(spelled, steps.Subtract)) == (not centred)
    assert spelled.output == "logits"


def test_where_the_format_has_normalization_it_stays():
    plan = random_plan(SPEC)
    assert len(of_kind(expand(plan), steps.LayerNorm)) == 5
