"""ONNX files for NPUs: every step by itself computes what simulated quantization predicts."""

import numpy as np
import onnx
import onnxruntime
import pytest
from emitted import read_onnx
from plans import random_images
from test_quantized_classifiers import each_classifier
from test_quantized_classifiers import quantized as quantized_classifier
from test_quantized_files import each_architecture, emit, quantized

from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import BY_FORMAT
from cct_export.quantize.statistics import collect

each_scheme = pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])


def engine_reals(content, images, shapes):
    """Returns every tensor of a plan as ONNX Runtime's float kernels between the pairs give it."""
    model = read_onnx(content)
    pairs = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    stored = {}
    for name in shapes:
        names = [f"{name}/on_grid", f"{name}/channels_first/on_grid", name]
        stored[name] = next(output for output in names if output in pairs)
    outputs = set(stored.values()) - {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    type = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
    names = list(stored)
    runs = [
        session.run([stored[name] for name in names], {"image": image[None].astype(type)})
        for image in images
    ]
    return {
        name: np.moveaxis(x, 1, -1) if has_channels_first(model, stored[name]) else x
        for name, x in zip(names, map(np.concatenate, zip(*runs, strict=True)), strict=True)
    }


def has_channels_first(model, name):
    """Tells the layout of a tensor by the last node before it that decides it."""
    producers = {output: node for node in model.graph.node for output in node.output}
    while name in producers:
        node = producers[name]
        if node.op_type in ("Conv", "MaxPool", "AveragePool", "Resize", "Pad"):
            return True
        if node.op_type == "Transpose":
            return list(node.attribute[0].ints) == [0, 3, 1, 2]
        if node.op_type in ("Reshape", "Gemm", "MatMul", "Flatten", "ReduceMean"):
            return False
        name = node.input[0]
    return False


def assert_every_step_is_predicted(quantized_plan, scheme, images, io="float32"):
    plan = quantized_plan.plan
    content = emit(quantized_plan, "onnx", scheme, io)
    reals = engine_reals(content, images, plan.shapes)
    np.testing.assert_array_equal(np.rint(reals["image"]), images)
    for step in plan.steps:
        inputs = [reals[name].astype(np.float64) for name in step.inputs]
        expected = quantized_plan.compute(step, *inputs)
        scale = float(quantized_plan.qparams[step.output].scale)
        # A step at most: float32 rounds values in the middle of two integers to either.
        assert np.abs(reals[step.output] - expected).max() / scale < 1.5, step.output


@each_architecture
@each_scheme
@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_every_step_computes_the_integers_that_the_simulation_predicts(name, scheme, io):
    plan, case = quantized(name, "onnx", scheme)
    assert_every_step_is_predicted(plan, scheme, case.images, io)


@each_classifier
@each_scheme
def test_so_does_every_step_of_classifiers_that_are_no_cct(name, scheme):
    plan, case = quantized_classifier(name, "onnx", scheme)
    assert_every_step_is_predicted(plan, scheme, case.images)


@each_scheme
@pytest.mark.parametrize("ceiling", [0.5, 6.0, np.inf])
def test_a_dense_layer_and_a_convolution_with_a_clipping_relu(scheme, ceiling):
    random = np.random.default_rng(0)
    dense = {"kernel": random.normal(size=(8, 5)), "bias": random.normal(size=5)}
    plan = Plan(
        (6, 6, 3),
        (
            steps.Conv(
                "c", ("image",), random.normal(size=(3, 3, 3, 8)) / 300, random.normal(size=8),
                relu=True, ceiling=ceiling,
            ),
            steps.Reshape("t", ("c",), (16, 8)),
            steps.Dense("d", ("t",), **dense, relu=True, ceiling=ceiling),
            steps.GlobalPool("logits", ("d",), False),
        ),
    )  # fmt: skip
    images = random_images(plan, 6)
    statistics = collect(plan, images, "noise")
    quantized_plan = quantize(plan, BY_FORMAT["onnx"][scheme], statistics)
    assert_every_step_is_predicted(quantized_plan, scheme, images)
