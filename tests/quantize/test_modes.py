"""Modes of quantization: which steps compute in integers, in every scheme."""

from dataclasses import replace

import numpy as np
import pytest
from plans import of_kind, random_plan

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.quantize.modes import attention_steps, is_small, quantization_modes
from cct_export.quantize.schemes import BY_FORMAT, SCHEMES
from cct_export.specs import ModelSpec

SPEC = ModelSpec(
    filters=(4, 64), mlp_units=(64, 64), heads=2, head_dim=24, layers=1, image_size=12, classes=3
)
INT8 = SCHEMES["int8"]
CASES = [(format, name) for format, schemes in BY_FORMAT.items() for name in schemes]
BEFORE_GELU = {"block_0/mlp_0", "block_0/mlp_1"}
each_scheme = pytest.mark.parametrize(("format", "name"), CASES)


@pytest.fixture(scope="module")
def plan():
    return expand(fold(random_plan(SPEC)), layer_norm=False)


def dense_layers(plan, small):
    layers = of_kind(plan, steps.Dense)
    outputs = [step.output for step in layers if is_small(plan, step) == small]
    assert outputs
    return outputs


@each_scheme
def test_every_step_has_a_mode_and_convolutions_and_large_dense_layers_that_of_the_scheme(
    plan, format, name
):
    scheme = BY_FORMAT[format][name]
    modes = quantization_modes(plan, scheme)
    assert set(modes) == {step.output for step in plan.steps}
    assert {modes[step.output] for step in of_kind(plan, steps.Conv)} == {
        scheme.first_convolution or scheme.convolution  # none has many channels
    }
    attention = attention_steps(plan, scheme.attention)
    large = set(dense_layers(plan, small=False)) - attention - BEFORE_GELU
    assert {modes[output] for output in large} <= {scheme.dense}
    assert {modes[output] for output in attention} <= {"static"}
    others = [s for s in plan.steps if not isinstance(s, steps.Conv | steps.Dense | steps.MaxPool)]
    assert {modes[s.output] for s in others if s.output not in attention} == {scheme.rest}


@pytest.mark.parametrize(("channels", "mode"), [(15, "float"), (16, "static")])
def test_convolutions_of_few_channels_may_have_a_mode_of_their_own(channels, mode):
    conv = steps.Conv("logits", ("image",), np.ones((3, 3, channels, 4)))
    modes = quantization_modes(Plan((8, 8, channels), (conv,)), BY_FORMAT["onnx"]["int8"])
    assert modes == {"logits": mode}


@pytest.mark.parametrize(("size", "mode"), [(8, "dynamic"), (64, "float")])
def test_convolutions_of_wide_maps_have_no_dynamic_ranges_in_onnx(size, mode):
    conv = steps.Conv("logits", ("image",), np.ones((3, 3, 32, 32)))
    scheme = BY_FORMAT["onnx"]["int8-dynamic"]
    assert quantization_modes(Plan((size, size, 32), (conv,)), scheme) == {"logits": mode}
    assert quantization_modes(Plan((size, size, 32), (conv,)), SCHEMES["int8-dynamic"]) == {
        "logits": "dynamic"
    }


@pytest.mark.parametrize(
    ("shape", "kept", "mode"),
    [((16, 1, 32), (16, 32), "dynamic"), ((4, 4, 32), (4, 4, 32), "float")],
)
def test_ncnn_multiplies_two_matrices_in_integers_and_those_of_several_heads_in_float(
    shape, kept, mode
):
    tokens = steps.Reshape("tokens", ("image",), kept)
    product = steps.MatMul("logits", ("tokens", "tokens"), transpose_b=True)
    modes = quantization_modes(Plan(shape, (tokens, product)), BY_FORMAT["ncnn"]["int8"])
    assert modes == {"tokens": "float", "logits": mode}


def test_small_dense_layers_stay_float_where_floats_are_allowed(plan):
    small = dense_layers(plan, small=True)
    assert {"pooling/scores", "logits"} <= set(small)
    for scheme in SCHEMES.values():
        expected = "static" if scheme.integers_only else "float"
        modes = quantization_modes(plan, scheme)
        assert {modes[output] for output in small} == {expected}


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_static_from_its_projections_to_the_output_but_for_the_softmax(heads):
    plan = expand(fold(random_plan(replace(SPEC, heads=heads))), layer_norm=False)
    static = attention_steps(plan, "static")
    assert attention_steps(plan, "float") == set()
    assert attention_steps(plan, "scores") == {"block_0/attention/scores"}
    of_attention = {s.output for s in plan.steps if s.output.startswith("block_0/attention")}
    softmax = {s.output for s in of_kind(plan, steps.Softmax) if s.output in of_attention}
    norm = {name for name in of_attention if "attention_norm" in name or "attention_sum" in name}
    assert static == of_attention - norm - softmax
    modes = quantization_modes(plan, INT8)
    others = {name for name in modes.keys() - static if modes[name] == "static"}
    assert {name for name in others if "tokenizer" not in name} == BEFORE_GELU


def test_products_that_are_no_attention_stay_float():
    kernel = np.random.default_rng(0).normal(size=(8, 8))
    plan = Plan(
        (4, 8, 2),
        (
            steps.Reshape("x", ("image",), (8, 8)),
            steps.Dense("a", ("x",), kernel),
            steps.Dense("b", ("x",), kernel),
            steps.MatMul("c", ("a", "b"), True),
            steps.Activation("d", ("c",), "tanh"),
            steps.MatMul("e", ("d", "x")),
        ),
    )
    assert attention_steps(plan, "static") == set()


def pool_after(first):
    """A plan of a pool after a convolution or a GELU, and before a convolution."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 2))
    gelu = steps.Gelu("a", ("image",), False)
    return Plan(
        (12, 12, 2),
        (
            steps.Conv("a", ("image",), kernel) if first == "conv" else gelu,
            steps.ZeroPad("z", ("a",), ((1, 1), (1, 1))),
            steps.MaxPool("p", ("z",), (2, 2), (2, 2)),
            steps.Conv("logits", ("p",), kernel),
        ),
    )


@pytest.mark.parametrize(
    ("first", "scheme", "mode"),
    [
        ("conv", "int8", "static"),
        ("gelu", "int8", "float"),
        ("conv", "int8-dynamic", "float"),
    ],
)
def test_a_pool_is_static_only_after_a_static_step(first, scheme, mode):
    modes = quantization_modes(pool_after(first), SCHEMES[scheme])
    assert modes["p"] == modes["z"] == mode


def test_a_pool_after_a_convolution_that_is_kept_float_is_float():
    modes = quantization_modes(pool_after("conv"), INT8, ["a"])
    assert modes == {"a": "float", "z": "float", "p": "float", "logits": "static"}
