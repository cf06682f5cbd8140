"""Quantization parameters, and the simulated quantized inference of a plan."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import random_images, random_plan, tensors_of

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.interpret import compute
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams, evaluate
from cct_export.specs import ModelSpec

TINY = ModelSpec(
    filters=(4, 8), mlp_units=(8, 8), heads=2, head_dim=4, layers=1, image_size=12, classes=3
)
LIMITS = {4: (-7, 7), 8: (-128, 127), 16: (-32767, 32767)}


@st.composite
def random_params(draw):
    qmin, qmax = LIMITS[draw(st.sampled_from(sorted(LIMITS)))]
    scale = draw(st.floats(1e-6, 1e3))
    return QuantParams(np.array(scale), draw(st.integers(qmin, qmax)), qmin, qmax)


def reals_around(params, fractions):
    """Returns reals from one width of the range below it to one above it."""
    width = float(params.max_value - params.min_value)
    return float(params.min_value) + np.array(fractions) * width


def quantized_as(plan, mode):
    """Returns a plan whose every step is quantized in one way, with a scale of 1/64."""
    params = QuantParams(np.array(1 / 64), 0, -128, 127)
    config = OpQuantConfig(mode, mode == "static")
    return QuantizedPlan(
        plan, dict.fromkeys(plan.shapes, params), {step.output: config for step in plan.steps}
    )


fractions = st.lists(st.floats(-1, 2), min_size=1, max_size=20)


@given(random_params(), fractions)
def test_fake_quantization_is_idempotent(params, fractions):
    reals = params.fake_quantize(reals_around(params, fractions))
    np.testing.assert_array_equal(params.fake_quantize(reals), reals)


@given(random_params(), fractions)
def test_the_error_is_half_a_scale_at_most_inside_the_range_and_values_outside_are_clipped(
    params, fractions
):
    x = reals_around(params, fractions)
    reals = params.fake_quantize(x)
    # The quotient by the scale is rounded, at most by one part in 2^53 of the largest integer.
    slack = float(params.scale) * 1e-9
    inside = np.clip(x, params.min_value, params.max_value)
    assert np.all(np.abs(reals - inside) <= float(params.scale) / 2 + slack)
    np.testing.assert_array_equal(reals[x < params.min_value], params.min_value)
    np.testing.assert_array_equal(reals[x > params.max_value], params.max_value)


@given(random_params(), fractions)
def test_quantized_values_are_integers_within_the_bounds(params, fractions):
    integers = params.quantize(reals_around(params, fractions))
    np.testing.assert_array_equal(integers, np.rint(integers))
    assert integers.min() >= params.qmin
    assert integers.max() <= params.qmax


@given(random_params())
def test_zero_and_the_ends_of_the_range_have_their_integers(params):
    np.testing.assert_array_equal(params.quantize(np.zeros(1)), params.zero_point)
    np.testing.assert_array_equal(params.quantize(np.array([params.min_value])), params.qmin)
    np.testing.assert_array_equal(params.quantize(np.array([params.max_value])), params.qmax)


@pytest.mark.parametrize("bits", LIMITS)
def test_the_bits_follow_from_the_largest_integer(bits):
    qmin, qmax = LIMITS[bits]
    assert QuantParams(np.array(1.0), 0, qmin, qmax).bits == bits
    assert QuantParams(np.array(1.0), 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).bits == bits


def test_a_scale_per_channel_belongs_to_the_last_axis():
    params = QuantParams(np.array([1.0, 0.5]), 0, -127, 127)
    np.testing.assert_array_equal(
        params.fake_quantize(np.array([[0.6, 0.6], [200, 200]])), [[1, 0.5], [127, 63.5]]
    )


def test_in_float_every_step_computes_what_its_reference_does():
    plan = expand(fold(random_plan(TINY)), layer_norm=False)
    images = random_images(plan, 3)
    tensors = tensors_of(QuantizedPlan(plan), images)
    for step in plan.steps:
        inputs = (tensors[name] for name in step.inputs)
        np.testing.assert_array_equal(tensors[step.output], compute(step, *inputs))
    np.testing.assert_array_equal(tensors[plan.output], evaluate(plan, images))


@pytest.mark.parametrize("wrap", [lambda plan: plan, QuantizedPlan])
def test_every_tensor_is_observed_once_and_in_order_the_image_first(wrap):
    plan = expand(fold(random_plan(TINY)))
    names, shapes = [], {}

    def observe(name, x):
        names.append(name)
        shapes[name] = x.shape

    evaluate(wrap(plan), random_images(plan), observe)
    assert names == list(plan.shapes) == ["image", *(step.output for step in plan.steps)]
    assert shapes == {name: (2, *shape) for name, shape in plan.shapes.items()}


def test_a_tensor_is_kept_until_its_last_consumer():
    plan = Plan(
        (1, 2, 3),
        (
            steps.Multiply("square", ("image", "image")),
            steps.Add("twice", ("square", "square")),
            steps.Subtract("logits", ("twice", "image")),
        ),
    )
    images = random_images(plan)
    expected = 2.0 * images.astype(float) ** 2 - images
    np.testing.assert_array_equal(evaluate(plan, images), expected)


def test_a_static_step_quantizes_its_inputs_and_its_output():
    plan = Plan((1, 1, 4), (steps.Gelu("logits", ("image",), False),))
    fine = QuantParams(np.array(0.25), 3, -128, 127)
    coarse = QuantParams(np.array(0.5), -10, -128, 127)
    quantized = QuantizedPlan(
        plan, {"image": fine, "logits": coarse}, {"logits": OpQuantConfig("static", True)}
    )
    x = np.random.default_rng(0).normal(size=(5, 1, 1, 4)) * 40
    y = quantized.compute(plan.steps[0], x)
    expected = coarse.fake_quantize(compute(plan.steps[0], fine.fake_quantize(x)))
    np.testing.assert_array_equal(y, expected)
    assert np.any(y != compute(plan.steps[0], x))


def test_a_static_step_can_have_a_float_output():
    plan = Plan((1, 1, 4), (steps.Gelu("logits", ("image",), False),))
    params = QuantParams(np.array(0.25), 3, -128, 127)
    quantized = QuantizedPlan(plan, {"image": params}, {"logits": OpQuantConfig("static", False)})
    x = np.random.default_rng(0).normal(size=(5, 1, 1, 4))
    np.testing.assert_array_equal(
        quantized.compute(plan.steps[0], x), compute(plan.steps[0], params.fake_quantize(x))
    )


def fake_quantized(x, low, high):
    """Returns values quantized to 256 integers from low to high, and dequantized."""
    scale = (high - low) / 255
    zero_point = np.rint(-128 - low / scale)
    return (np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point) * scale


@pytest.mark.parametrize("per_token", [True, False])
def test_a_dynamic_dense_layer_has_a_range_for_each_token_or_for_each_image(per_token):
    random = np.random.default_rng(1)
    step = steps.Dense("logits", ("image",), random.normal(size=(6, 5)), random.normal(size=5))
    quantized = QuantizedPlan(
        Plan((3, 1, 6), (step,)), {}, {"logits": OpQuantConfig("dynamic")}, per_token
    )
    # Tokens and images of very different size: a shared range shows.
    x = random.normal(size=(2, 3, 1, 6)) * np.array([[1, 10, 100], [7, 70, 700]])[..., None, None]
    inputs = np.empty_like(x)
    for image, tokens in enumerate(x):
        for index, token in enumerate(tokens):
            group = token if per_token else tokens
            inputs[image, index] = fake_quantized(token, group.min(), group.max())
    np.testing.assert_allclose(quantized.compute(step, x), compute(step, inputs), rtol=1e-12)


def test_a_symmetric_dynamic_range_spans_the_largest_absolute_value():
    random = np.random.default_rng(1)
    step = steps.Dense("logits", ("image",), random.normal(size=(6, 5)))
    quantized = QuantizedPlan(
        Plan((3, 1, 6), (step,)), {}, {"logits": OpQuantConfig("dynamic")}, False, True
    )
    x = random.normal(size=(2, 3, 1, 6)) + 3
    scales = np.abs(x).max((1, 2, 3), keepdims=True) / 127
    expected = compute(step, np.rint(x / scales) * scales)
    np.testing.assert_allclose(quantized.compute(step, x), expected, rtol=1e-12)
    assert not quantized.compute(step, np.zeros_like(x)).any()


def test_a_dynamic_convolution_has_one_range_for_each_image():
    random = np.random.default_rng(1)
    step = steps.Conv("logits", ("image",), random.normal(size=(2, 2, 3, 4)), relu=False)
    quantized = QuantizedPlan(Plan((4, 4, 3), (step,)), {}, {"logits": OpQuantConfig("dynamic")})
    x = random.normal(size=(2, 4, 4, 3)) * np.array([1, 50])[:, None, None, None]
    inputs = np.stack([fake_quantized(image, image.min(), image.max()) for image in x])
    np.testing.assert_allclose(quantized.compute(step, x), compute(step, inputs), atol=1e-10)


@pytest.mark.parametrize("values", [[0, 0, 0], [2, 3, 4], [-4, -3, -2]])
def test_a_dynamic_range_always_includes_zero(values):
    step = steps.Dense("logits", ("image",), np.eye(3))
    quantized = QuantizedPlan(Plan((1, 1, 3), (step,)), {}, {"logits": OpQuantConfig("dynamic")})
    y = quantized.compute(step, np.array([[[values]]], float))
    half = max(map(abs, values)) / 255 / 2
    np.testing.assert_allclose(y, [[[values]]], rtol=0, atol=half * (1 + 1e-9))


def test_a_plan_is_integer_only_if_every_step_is_static_with_these_bits():
    plan = expand(fold(random_plan(TINY)), layer_norm=False)
    static = quantized_as(plan, "static")
    assert static.is_integer_only(8)
    assert not static.is_integer_only(16)
    assert not quantized_as(plan, "dynamic").is_integer_only(8)
    assert not QuantizedPlan(plan).is_integer_only(8)
    for config in (OpQuantConfig("float", True), OpQuantConfig("static", False), OpQuantConfig()):
        configs = {**static.configs, plan.output: config}
        assert not QuantizedPlan(plan, static.qparams, configs).is_integer_only(8)
    qparams = {**static.qparams, plan.output: QuantParams(np.array(1.0), 0, -32767, 32767)}
    assert not QuantizedPlan(plan, qparams, static.configs).is_integer_only(8)


def test_every_tensor_of_a_static_plan_is_representable():
    plan = expand(fold(random_plan(TINY)), layer_norm=False)
    quantized = quantized_as(plan, "static")
    tensors = tensors_of(quantized, random_images(plan))
    assert len(tensors) == len(plan.steps) + 1
    for step in plan.steps:
        x = tensors[step.output]
        np.testing.assert_array_equal(x, quantized.qparams[step.output].fake_quantize(x))
