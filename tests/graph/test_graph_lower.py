"""Lowering: what a plan holds of a Keras model, and which models are lowered."""

import keras
import numpy as np
import pytest
from plans import random_model, random_plan

import cct_export
from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.interpret import compute
from cct_export.graph.lower import can_lower, lower
from cct_export.graph.windows import same_pads
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec


def test_the_plan_of_the_keras_io_model_has_its_parameters_and_no_training_layers():
    model = cct_export.load("cct_keras_io").model
    plan = lower(model)
    scale_and_shift = 2
    assert plan.parameters == model.count_params() + scale_and_shift
    assert [step.kind for step in plan.steps].count("Attention") == 2
    assert plan.output == "logits"
    assert plan.shapes["logits"] == (10,)
    assert plan.shapes["tokenizer/tokens"] == (64, 128)


def test_a_plan_prints_a_line_per_step_with_shape_parameters_and_macs():
    plan = random_plan(ModelSpec(filters=(4, 8), mlp_units=(8,), heads=1, head_dim=8, layers=1))
    lines = str(plan).splitlines()
    assert len(lines) == len(plan.steps) + 2
    assert lines[2].split() == ["tokenizer/0/conv", "Conv", "30×30×4", "108", "97,200"]
    assert lines[-1].split() == [f"{plan.parameters:,}", f"{plan.total_macs:,}"]


def test_attention_has_the_same_macs_whole_and_expanded():
    plan = random_plan(ModelSpec(filters=(8, 12), mlp_units=(12,), heads=3, head_dim=5, layers=2))
    assert expand(plan).total_macs == plan.total_macs


def test_other_models_are_not_lowered():
    cnn = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert not can_lower(cnn)
    assert can_lower(random_model(ModelSpec(filters=(4,), mlp_units=(4,), layers=0), 0))


def test_a_cct_that_was_built_inside_another_layer_is_lowered():
    spec = ModelSpec(filters=(4,), mlp_units=(4,), layers=1, heads=1, head_dim=4)
    with keras.name_scope("ensemble"):
        model = CCT(spec)
    assert model.get_layer("logits").kernel.path.startswith("ensemble/")
    assert lower(model).parameters == model.count_params() + 2


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 1), (2, 3)])
def test_same_pads_are_those_of_tensorflow(size, window, stride):
    before, after = same_pads(size, window, stride)
    pool = steps.MaxPool("y", ("x",), (window,) * 2, (stride,) * 2, ((before, after),) * 2)
    x = np.random.default_rng(size).normal(size=(1, size, size, 1)).astype(np.float32)
    expected = keras.ops.max_pool(x, window, stride, padding="same")
    np.testing.assert_array_equal(compute(pool, x), np.asarray(expected))


@pytest.mark.parametrize(("block", "fused"), [("keras", [0, 1]), ("paper", [0])])
def test_relu_becomes_part_of_the_dense_layers_before_it(block, fused):
    spec = ModelSpec(
        filters=(4,), mlp_units=(6, 4), layers=1, heads=1, head_dim=4, block=block,
        activation="relu",
    )  # fmt: skip
    plan = random_plan(spec)
    names = [step.output for step in plan.steps if isinstance(step, steps.Activation)]
    assert names == [f"block_0/relu_{index}" for index in fused]
    folded = fold(plan)
    assert not {"Activation", "Gelu"} & {step.kind for step in folded.steps}
    assert sum(isinstance(step, steps.Dense) and step.relu for step in folded.steps) == len(fused)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("block", ["keras", "paper"])
@pytest.mark.parametrize("part", ["convolution", "mlp", "logits", "call"])
def test_a_cct_with_another_activation_or_call_is_not_lowered(part, block, activation):
    spec = ModelSpec(
        filters=(4,), mlp_units=(4, 4), layers=1, heads=1, head_dim=4, block=block,
        activation=activation,
    )  # fmt: skip
    model = random_model(spec, 0)
    assert can_lower(model)
    if part == "convolution":
        model.get_layer("tokenizer").convolutions[0].activation = keras.activations.linear
    elif part == "mlp":
        model.get_layer("block_0").mlp[0].activation = keras.activations.gelu
    elif part == "logits":
        model.get_layer("logits").activation = keras.activations.softmax
    else:
        model = type("Mine", (type(model),), {"call": lambda self, x, **_: x})(spec)
    assert not can_lower(model)
