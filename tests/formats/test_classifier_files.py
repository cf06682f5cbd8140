"""Files of classifiers that are no CCT: the logits of their plan in both engines."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from classifiers import CLASSIFIERS, activation, classifier
from emitted import partitions_of, read_onnx, read_tflite, run_onnx, run_tflite
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import assert_same, random_images

from cct_export.formats import onnx, tflite
from cct_export.graph import steps
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.specs import OPSETS, ExportSpec

TFLITE, ONNX = ExportSpec("tflite"), ExportSpec("onnx", dynamic_batch=True)
each_classifier = pytest.mark.parametrize("name", CLASSIFIERS)
prepared = pytest.mark.parametrize("prepare", [lambda plan: plan, fold], ids=["as it is", "folded"])


@each_classifier
@prepared
def test_a_flatbuffer_gives_the_logits_of_its_plan(name, prepare):
    plan = CLASSIFIERS[name]
    images = random_images(plan)
    content = tflite.emit(prepare(plan), TFLITE)
    assert_same(run_tflite(content, images), evaluate(plan, images), 1e-5)


@each_classifier
@prepared
@pytest.mark.parametrize("opset", [OPSETS[0], 17, 18, OPSETS[-1]])
def test_a_graph_gives_the_logits_of_its_plan_for_any_number_of_images(name, prepare, opset):
    plan = CLASSIFIERS[name]
    images = random_images(plan, 3)
    content = onnx.emit(prepare(plan), replace(ONNX, opset=opset))
    assert_same(run_onnx(content, images, batched=True), evaluate(plan, images), 1e-5)


@each_classifier
def test_the_delegate_runs_a_folded_flatbuffer_as_one_partition(name):
    # XNNPACK has no gather: a choice of channels that no weights absorb costs a partition.
    expected = (2, 1) if name == "grey of two channels" else (1, 0)
    assert partitions_of(tflite.emit(fold(CLASSIFIERS[name]), TFLITE)) == expected


# Tokens, flattened maps, and vectors that weight the channels of a map.
REORDERED = {"maximum of tokens": 3, "mean of tokens": 1, "flat": 1, "global maximum": 1, "gate": 1}


@each_classifier
def test_a_graph_transposes_at_the_image_and_where_maps_become_rows(name):
    nodes = read_onnx(onnx.emit(fold(CLASSIFIERS[name]), ONNX)).graph.node
    count = Counter(node.op_type for node in nodes)["Transpose"]
    assert count == 1 + REORDERED.get(name, 0)


def test_relu_is_part_of_the_convolution_and_of_the_dense_layer():
    kinds = schema_activations(fold(CLASSIFIERS["mean of tokens"]), "FULLY_CONNECTED")
    assert kinds == ["RELU", "RELU6", "NONE"]
    for function in ("relu", "relu6"):
        kinds = schema_activations(fold(CLASSIFIERS[function]), "CONV_2D")
        assert kinds == [function.upper()]


def schema_activations(plan, kind):
    """Returns the fused activations of the operators of a kind."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.ActivationFunctionType).items() if not k.startswith("_")}
    read = read_tflite(tflite.emit(plan, TFLITE)).operators
    return [names[o.options.fusedActivationFunction] for o in read if o.kind == kind]


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(3, 9)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(0, 2)] * 4),
)
def test_an_average_never_counts_its_padding(shape, size, strides, pads):
    top, bottom, left, right = pads
    bounded = (
        (min(top, size[0] - 1), min(bottom, size[0] - 1)),
        (min(left, size[1] - 1), min(right, size[1] - 1)),
    )
    pool = steps.AveragePool("p", ("image",), size, strides, bounded)
    plan = Plan((*shape, 2), (pool, steps.Add("logits", ("p", "p"))))
    images = random_images(plan)
    expected = evaluate(plan, images)
    assert_same(run_tflite(tflite.emit(plan, TFLITE), images), expected, 1e-5)
    assert_same(run_onnx(onnx.emit(plan, ONNX), images, batched=True), expected, 1e-5)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 40)] * 2))
def test_engines_interpolate_between_the_centres_of_pixels(before, after):
    plan = Plan((*before, 3), (steps.Resize("logits", ("image",), after),))
    images = random_images(plan)
    expected = evaluate(plan, images)
    assert_same(run_tflite(tflite.emit(plan, TFLITE), images), expected, 1e-5)
    for opset in (OPSETS[0], OPSETS[-1]):
        content = onnx.emit(plan, replace(ONNX, opset=opset))
        assert_same(run_onnx(content, images, batched=True), expected, 1e-5)


@pytest.mark.parametrize("function", steps.ACTIVATIONS)
def test_activations_are_right_for_small_and_large_values(function):
    shift = steps.AddConstant("a", ("image",), np.full(1, -128.0))
    for scale in (1e-3, 0.1, 1.0):
        scaled = steps.Scale("b", ("a",), np.full(1, scale), np.zeros(1))
        plan = Plan((16, 16, 1), (shift, scaled, activation(function, "logits", "b")))
        images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        expected = evaluate(plan, images)
        assert_same(run_tflite(tflite.emit(plan, TFLITE), images), expected, 1e-6)
        assert_same(run_onnx(onnx.emit(plan, ONNX), images), expected, 1e-6)


def test_a_feature_map_as_output_keeps_its_channels_last():
    first = classifier(activation("relu", "logits")).steps[:3]
    plan = Plan((12, 10, 3), first)
    images = random_images(plan)
    expected = evaluate(plan, images)
    for cut in (plan, fold(plan)):
        content = onnx.emit(cut, ONNX)
        (output,) = read_onnx(content).graph.output
        assert [d.dim_value for d in output.type.tensor_type.shape.dim][1:] == [10, 8, 32]
        assert_same(run_onnx(content, images), expected, 1e-5)


def test_the_image_serves_integers_and_floats_at_once():
    plan = Plan(
        (4, 4, 2), (steps.Gather("g", ("image",), (1, 0)), steps.Add("logits", ("image", "g")))
    )
    images = random_images(plan)
    content = tflite.emit(plan, replace(TFLITE, io="uint8"))
    np.testing.assert_array_equal(run_tflite(content, images), evaluate(plan, images))
