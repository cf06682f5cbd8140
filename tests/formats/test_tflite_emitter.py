"""Flatbuffers of plans: the same logits, builtin operators, one partition for the delegate."""

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from emitted import partitions_of, read_tflite, run_tflite
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import assert_same, random_images, random_model, random_plan, specs

import cct_export
from cct_export.formats.tflite import emit
from cct_export.graph import steps
from cct_export.graph.fold import PASSES, fold
from cct_export.graph.lower import lower
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.specs import ExportSpec, ModelSpec

SPEC = ExportSpec("tflite")
SMALL = ModelSpec(filters=(6, 16), mlp_units=(16, 16), heads=2, head_dim=16, layers=2)


@settings(max_examples=8, deadline=None)
@given(specs(), st.integers(0, 2**16), st.sets(st.sampled_from(sorted(PASSES))))
def test_a_flatbuffer_gives_the_logits_of_its_plan_whatever_is_folded(spec, seed, without):
    plan = random_plan(spec, seed)
    images = random_images(plan)
    content = emit(fold(plan, without), SPEC)
    assert_same(run_tflite(content, images), evaluate(plan, images), 1e-4)
    assert partitions_of(content) == (1, 0)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("without", [(), *((name,) for name in PASSES), tuple(PASSES)])
def test_a_flatbuffer_is_one_partition_with_and_without_each_fold(heads, without):
    plan = random_plan(replace(SMALL, heads=heads, head_dim=16 // heads, layers=1))
    images = random_images(plan)
    content = emit(fold(plan, without), SPEC)
    assert partitions_of(content) == (1, 0)
    assert_same(run_tflite(content, images), evaluate(plan, images), 1e-4)


def test_every_activation_keeps_its_batch_axis_up_to_the_pooled_vector():
    graph = read_tflite(emit(fold(random_plan(SMALL)), SPEC))
    outputs = [operator.output.shape for operator in graph.operators]
    assert all(shape[0] == 1 for shape in outputs)
    pooled = outputs.index((1, 16))
    assert all(len(shape) in (3, 4) for shape in outputs[:pooled])
    assert outputs[pooled:] == [(1, 16), (1, 10)]


def test_products_of_activations_are_batched_and_dense_layers_keep_their_axes():
    operators = read_tflite(emit(fold(random_plan(SMALL)), SPEC)).operators
    products = [operator for operator in operators if operator.kind == "BATCH_MATMUL"]
    assert len(products) == 5
    assert all(len(tensor.shape) == 3 for product in products for tensor in product.inputs)
    dense = [operator for operator in operators if operator.kind == "FULLY_CONNECTED"]
    assert all(operator.options.keepNumDims for operator in dense)
    kinds = {operator.kind for operator in operators}
    assert not kinds & {"TRANSPOSE", "SPLIT", "CUSTOM", "CAST"}


@pytest.mark.parametrize("tanh", [True, False])
def test_gelu_is_the_variant_of_the_model(tanh):
    plan = Plan((4, 4, 3), (steps.Gelu("logits", ("image",), tanh),))
    images = random_images(plan) / 50
    content = emit(plan, SPEC)
    (operator,) = read_tflite(content).operators
    assert (operator.kind, operator.options.approximate) == ("GELU", tanh)
    assert_same(run_tflite(content, images), evaluate(plan, images), 1e-6)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 1), (0, 2)), ((0, 1), (0, 1))])
def test_padding_is_never_the_maximum_of_a_pool(relu, pads):
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 2))
    plan = Plan(
        (6, 6, 3),
        (
            # All results negative: a padded zero would win.
            steps.Conv("c", ("image",), kernel, np.full(2, -2000.0), relu=relu),
            steps.MaxPool("logits", ("c",), (3, 3), (2, 2), pads),
        ),
    )
    images = random_images(plan)
    logits = run_tflite(emit(plan, SPEC), images)
    assert_same(logits, evaluate(plan, images), 1e-6)
    assert (logits.max() < 0) == (not relu)


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((1, 0), (2, 1))])
@pytest.mark.parametrize("relu", [True, False])
def test_scaled_images_and_strided_padded_convolutions(strides, pads, relu):
    random = np.random.default_rng(0)
    plan = Plan(
        (7, 8, 3),
        (
            steps.Scale("s", ("image",), random.normal(size=3) / 255, random.normal(size=3)),
            steps.Conv("c", ("s",), random.normal(size=(3, 2, 3, 4)), None, strides, pads, relu),
            steps.Add("logits", ("c", "c")),
        ),
    )
    images = random_images(plan)
    assert_same(run_tflite(emit(plan, SPEC), images), evaluate(plan, images), 1e-5)


def test_equal_plans_give_equal_bytes():
    plans = [fold(lower(random_model(SMALL, 0))) for _ in range(2)]
    assert emit(plans[0], SPEC) == emit(plans[0], SPEC) == emit(plans[1], SPEC)


def test_metadata_is_in_the_file():
    metadata = {"name": "text", "other": "ü"}
    content = emit(fold(random_plan(SMALL)), SPEC, metadata)
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    texts = {m.name.decode(): bytes(model.buffers[m.buffer].data).decode() for m in model.metadata}
    assert texts == metadata


def test_every_constant_is_stored_once():
    content = emit(fold(lower(cct_export.load("cct_keras_io").model)), SPEC)
    # 282,954 parameters of 4 bytes, and the graph around them.
    assert 282_954 * 4 < len(content) < 282_954 * 4 + 20_000


def test_a_step_without_tflite_operator_is_an_error():
    plan = Plan((4, 4, 3), (steps.Step("logits", ("image",)),))
    with pytest.raises(TypeError, match="no operator for Step"):
        emit(plan, SPEC)
