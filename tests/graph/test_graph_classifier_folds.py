"""Folds of classifiers that are no CCT: exact, and each saves the steps that it names."""

import numpy as np
import pytest
from classifiers import CLASSIFIERS, activation, classifier, conv, dense
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from plans import EXACT, assert_same, of_kind, random_images

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate

PADS = ((1, 1), (1, 1))


def kinds(plan):
    return [step.kind for step in plan.steps]


def folded_by(name, plan):
    """Returns the plan after one fold, which leaves its logits as they are."""
    folded = PASSES[name](plan)
    images = random_images(plan)
    assert_same(evaluate(folded, images), evaluate(plan, images), EXACT)
    return folded


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_fold_is_exact_alone_and_with_the_others(name):
    plan = CLASSIFIERS[name]
    images = random_images(plan)
    expected = evaluate(plan, images)
    composed = {"layer_norm": False, "activations": ("relu6", "sigmoid", "tanh", "relu")}
    variants = [run(plan) for run in PASSES.values()]
    variants += [fold(plan), expand(fold(plan), uneven_means=False, **composed)]
    variants += [expand(plan, **composed), *(fold(plan, [without]) for without in PASSES)]
    for variant in variants:
        assert_same(evaluate(variant, images), expected, EXACT)
        assert variant.total_macs <= plan.total_macs
        assert len(fold(plan).steps) <= len(plan.steps)


def test_batch_normalization_and_relu_leave_one_convolution():
    plan = CLASSIFIERS["batch normalization"]
    assert kinds(plan) == ["Scale", "Conv", "Scale", "Activation", "GlobalPool", "Dense"]
    assert kinds(folded_by("batch-norm", plan)).count("Scale") == 1
    folded = fold(plan)
    assert kinds(folded) == ["Conv", "GlobalPool", "Dense"]
    assert folded.steps[0].relu


affine = arrays.arrays(np.float64, 32, elements=st.floats(-4, 4))


@settings(max_examples=20, deadline=None)
@given(affine, affine, st.booleans())
def test_any_scale_and_shift_folds_into_the_weights_before_it(scale, shift, bias):
    plan = classifier(steps.Scale("m", ("c",), scale, shift))
    if not bias:
        plain = steps.Conv("c", ("s",), plan.steps[1].kernel, relu=False)
        plan = plan.replace({"c": [plain]})
    assert kinds(folded_by("batch-norm", plan)) == ["Scale", "Conv", "GlobalPool", "Dense"]


def test_a_scale_after_a_dense_layer_and_another_scale_folds():
    scale, shift = np.linspace(0.5, 2, 5), np.linspace(-1, 1, 5)
    last = classifier(activation("tanh")).steps
    plan = Plan(
        (12, 10, 3),
        (
            *last[:-1],
            dense("d", "g", 32, 5),
            steps.Scale("e", ("d",), scale, shift),
            steps.AddConstant("f", ("e",), shift),
            steps.Scale("logits", ("f",), np.full(1, 3.0), np.zeros(1)),
        ),
    )
    folded = folded_by("batch-norm", plan)
    assert kinds(folded)[-2:] == ["GlobalPool", "Dense"]
    assert folded.output == "logits"


@pytest.mark.parametrize("relu", [True, False])
def test_a_scale_after_relu_or_of_a_shared_tensor_stays(relu):
    first = conv("d", "c", 1, 32, 32, relu=relu)
    scale = steps.Scale("e", ("d",), np.full(1, 2.0), np.ones(1))
    plan = classifier(first, scale, steps.Add("m", ("e", "e" if relu else "d")))
    assert folded_by("batch-norm", plan).steps == plan.steps


def test_relu_stays_where_the_sums_have_another_consumer():
    plan = classifier(activation("relu", "r"), steps.Add("m", ("r", "c")))
    assert folded_by("relu", plan).steps == plan.steps


@pytest.mark.parametrize("function", steps.ACTIVATIONS)
def test_only_functions_that_clip_fold_into_the_weights(function):
    plan = CLASSIFIERS[function]
    folds = function in ("relu", "relu6")
    assert ("Activation" in kinds(folded_by("relu", plan))) == (not folds)
    layer = dense("m", "c", 32, 32)
    plan = classifier(layer, activation(function, "n", "m"), steps.GlobalPool("o", ("n",)))
    plan = Plan(plan.image_shape, plan.steps[:5])
    assert ("Activation" in kinds(folded_by("relu", plan))) == (not folds)


def bgr(*after, order=(2, 1, 0)):
    """A plan that first puts the channels of its pixels in another order."""
    gather = steps.Gather("bgr", ("image",), order)
    return Plan((12, 10, 3), (gather, *after, dense("logits", "g", 4, 5)))


MEAN = steps.AddConstant("a", ("bgr",), np.array([-103.9, -116.8, -123.7]))
STD = steps.Scale("b", ("a",), np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("pads", [steps.NO_PADS, PADS])
def test_blue_green_red_minus_a_mean_goes_into_the_first_convolution(pads):
    plan = bgr(
        MEAN,
        STD,
        steps.Resize("r", ("b",), (9, 8)),
        steps.ZeroPad("z", ("r",), pads),
        conv("d", "z", 3, 3, 4),
        steps.GlobalPool("g", ("d",)),
    )
    assert "Gather" not in kinds(folded_by("channel-order", plan))
    before = ["Resize"] if pads == steps.NO_PADS else ["AddConstant", "Resize"]
    assert kinds(fold(plan)) == [*before, "Conv", "GlobalPool", "Dense"]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(3)))
def test_any_permutation_of_channels_folds(order):
    plan = bgr(MEAN, STD, conv("d", "b", 3, 3, 4), steps.GlobalPool("g", ("d",)), order=order)
    assert "Gather" not in kinds(folded_by("channel-order", plan))


@pytest.mark.parametrize(
    ("order", "between", "folds"),
    [
        ((0, 0, 1), (), True),
        ((0, 1, 1, 2), (), True),
        ((0, 2), (), False),  # the convolution would have a channel more
        ((0, 0, 1), (MEAN,), False),  # channel 0 would have two means
    ],
)
def test_a_choice_of_channels_folds_where_nothing_grows(order, between, folds):
    source = between[-1].output if between else "bgr"
    tail = (conv("d", source, 3, len(order), 4), steps.GlobalPool("g", ("d",)))
    plan = bgr(*between, *tail, order=order)
    assert ("Gather" not in kinds(folded_by("channel-order", plan))) == folds


def test_gamma_and_beta_pass_a_mean_of_the_tokens_but_not_a_maximum():
    norm = steps.LayerNorm("n", ("t",), 1e-3, np.linspace(0.5, 2, 32), np.linspace(-1, 1, 32))
    tokens = steps.Reshape("t", ("c",), (80, 32))
    for maximum in (False, True):
        pool = steps.GlobalPool("m", ("n",), maximum)
        plan = classifier(tokens, norm, pool, pooled=False)
        (folded,) = of_kind(folded_by("norm-affine", plan), steps.LayerNorm)
        assert (folded.gamma is None) == (folded.beta is None) == (not maximum)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("middle", ["flat", "mean", "rows"])
def test_pixel_scaling_goes_into_a_dense_layer_through_reshapes_and_means(size, middle):
    random = np.random.default_rng(size)
    scale = steps.Scale("s", ("image",), random.normal(size=size), random.normal(size=size))
    between = {
        "flat": (steps.Reshape("m", ("s",), (360,)), 360),
        "rows": (steps.Reshape("m", ("s",), (12, 30)), 30),
        "mean": (steps.GlobalPool("m", ("s",)), 3),
    }
    step, width = between[middle]
    plan = Plan((12, 10, 3), (scale, step, dense("logits", "m", width, 5)))
    assert kinds(folded_by("rescaling", plan)) == kinds(plan)[1:]


def test_a_scale_per_channel_stays_before_a_reshape_that_mixes_channels():
    scale = steps.Scale("s", ("image",), np.arange(1.0, 4), np.zeros(1))
    reshape = steps.Reshape("m", ("s",), (18, 20))
    plan = Plan((12, 10, 3), (scale, reshape, dense("logits", "m", 20, 5)))
    assert folded_by("rescaling", plan).steps == plan.steps


def test_a_shift_between_padded_convolutions_stays_beside_its_scale():
    scale = steps.Scale("e", ("r",), np.logspace(-6, 0, 32), np.ones(32))
    last = conv("m", "e", 3, 32, 32, pads=PADS)
    plan = classifier(activation("relu", "r"), scale, last)
    assert [s.output for s in of_kind(folded_by("rescaling", plan), steps.Scale)] == ["e"]


NON_NEGATIVE = {"relu": True, "relu6": True, "sigmoid": True, "hard-sigmoid": True}


@pytest.mark.parametrize("function", steps.ACTIVATIONS)
def test_zeros_become_padding_of_a_pool_where_no_value_is_negative(function):
    plan = classifier(
        activation(function, "r"),
        steps.AveragePool("q", ("r",), (2, 2), (1, 1)),
        steps.Gather("o", ("q",), tuple(range(31, -1, -1))),
        steps.ZeroPad("z", ("o",), PADS),
        steps.MaxPool("m", ("z",), (3, 3), (2, 2)),
    )
    folded = folded_by("pool-padding", plan)
    assert ("ZeroPad" not in kinds(folded)) == NON_NEGATIVE.get(function, False)


def test_zeros_before_a_convolution_become_its_padding():
    zeros = steps.ZeroPad("z", ("c",), ((1, 2), (0, 1)))
    plan = classifier(zeros, conv("m", "z", 3, 32, 32, pads=((0, 1), (1, 0))))
    folded = folded_by("pool-padding", plan)
    assert folded.producer("m").pads == ((1, 3), (1, 1))
