"""Convolutions as products of windows, ReLU after pools, and attention as one operator."""

from dataclasses import replace

import numpy as np
import pytest
from emitted import onnx_session, read_onnx, run_onnx
from plans import random_images

from cct_export.formats.onnx import emit
from cct_export.formats.onnx_conv import window_pixels
from cct_export.formats.onnx_layout import with_packed_attention, with_relu_after_pools
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, evaluate
from cct_export.quantize.rounding import weight_params
from cct_export.specs import ExportSpec

SPEC = ExportSpec("onnx", "int8-dynamic", dynamic_batch=True)


def dynamic(plan, name):
    """The plan with one convolution in integers whose range is determined at run time."""
    conv = plan.producer(name)
    params = weight_params(conv.kernel)
    rounded = replace(conv, kernel=params.fake_quantize(conv.kernel))
    config = OpQuantConfig("dynamic", False, params)
    return QuantizedPlan(plan.replace({name: [rounded]}), {}, {name: config}, per_token=False)


@pytest.mark.parametrize("pads", [steps.NO_PADS, ((1, 0), (2, 1))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_dynamic_convolution_is_a_product_of_gathered_windows(pads, strides, bias):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 2, 4, 5))
    plan = Plan(
        (7, 8, 4),
        (
            steps.AddConstant("x", ("image",), np.array([-100.0, -50, 0, 3])),
            steps.Conv("c", ("x",), kernel, random.normal(size=5) if bias else None, strides, pads),
            steps.MaxPool("logits", ("c",), (2, 2), (1, 1)),
        ),
    )
    quantized = dynamic(plan, "c")
    images = random_images(plan, 1)
    content = emit(quantized, SPEC)
    kinds = {node.op_type for node in read_onnx(content).graph.node}
    assert "MatMulInteger" in kinds
    assert "Conv" not in kinds
    expected = evaluate(quantized, images)
    np.testing.assert_allclose(
        run_onnx(content, images, batched=True), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_windows_hold_the_pixels_below_them_and_one_more_for_padding():
    pixels = window_pixels((2, 3), (2, 2), (1, 2), ((1, 0), (0, 1)))
    assert pixels.tolist() == [[6, 6, 0, 1], [6, 6, 2, 6], [0, 1, 3, 4], [2, 6, 5, 6]]


def test_relu_moves_behind_the_pool_of_a_dynamic_convolution_and_the_logits_stay():
    random = np.random.default_rng(0)
    plan = Plan(
        (6, 6, 3),
        (
            steps.Conv("c", ("image",), random.normal(size=(3, 3, 3, 4))),
            steps.MaxPool("logits", ("c",), (2, 2), (2, 2)),
        ),
    )
    quantized, images = dynamic(plan, "c"), random_images(plan)
    moved = with_relu_after_pools(quantized)
    assert [step.kind for step in moved.plan.steps] == ["Conv", "MaxPool", "Activation"]
    np.testing.assert_array_equal(evaluate(moved, images), evaluate(quantized, images))


def test_relu_stays_before_a_pool_in_a_float_plan():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    conv = steps.Conv("c", ("image",), kernel)
    plan = Plan((6, 6, 3), (conv, steps.MaxPool("logits", ("c",), (2, 2), (2, 2))))
    assert with_relu_after_pools(QuantizedPlan(plan)).plan.steps == plan.steps


UNSHARED = ("--no-fold", "query-key", "--no-fold", "value-output")


@pytest.mark.parametrize("options", [(), ("--pure-onnx",), ("--target", "arm64")])
def test_attention_with_a_projection_of_each_head_is_one_operator_unless_it_may_not_be(
    tmp_path, in_process, digits_model, options
):
    path = tmp_path / "m.onnx"
    arguments = ("--quantize", "int8", *UNSHARED, *options, "--data", "digits", "-o", path)
    ended = in_process("export", "onnx", digits_model, *arguments, "--samples", 64)
    assert ended.code == 0, ended.err
    nodes = read_onnx(path).graph.node
    packed = [node for node in nodes if node.op_type == "QAttention"]
    assert len(packed) == (0 if options else 2)
    assert ("com.microsoft" in ended.err) == ("--pure-onnx" not in options)
    assert onnx_session(path).get_outputs()[0].name == "logits"


def test_a_plan_without_integers_has_no_packed_attention():
    plan = Plan((4, 4, 3), (steps.Gelu("logits", ("image",), False),))
    assert with_packed_attention(QuantizedPlan(plan)).plan.steps == plan.steps
