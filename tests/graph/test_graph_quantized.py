"""Integers that stand for reals, and the arithmetic of a plan on them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import random_images, random_plan

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.interpret import compute
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams, tensors
from cct_export.specs import ModelSpec

TINY = ModelSpec(
    filters=(4, 8), mlp_units=(8, 8), heads=2, head_dim=4, layers=1, image_size=12, classes=3
)
LIMITS = {4: (-7, 7), 8: (-128, 127), 16: (-32767, 32767)}


@st.composite
def qparams(draw):
    low, high = LIMITS[draw(st.sampled_from(sorted(LIMITS)))]
    scale = draw(st.floats(1e-6, 1e3))
    return QuantParams(np.array(scale), draw(st.integers(low, high)), low, high)


def reals_around(grid, shares):
    """Returns reals from one width of the grid below it to one above it."""
    width = float(grid.largest - grid.smallest)
    return float(grid.smallest) + np.array(shares) * width


def all_of(made, mode):
    """Returns a plan as quantized whose every step computes in one way, on a grid of 1/64."""
    grid = QuantParams(np.array(1 / 64), 0, -128, 127)
    config = OpQuantConfig(mode, mode == "static")
    return QuantizedPlan(
        made, dict.fromkeys(made.shapes, grid), {step.output: config for step in made.steps}
    )


shares = st.lists(st.floats(-1, 2), min_size=1, max_size=20)


@given(qparams(), shares)
def test_what_is_on_the_grid_stays_where_it_is(grid, shares):
    snapped = grid.snap(reals_around(grid, shares))
    np.testing.assert_array_equal(grid.snap(snapped), snapped)


@given(qparams(), shares)
def test_inside_the_grid_the_error_is_half_a_step_at_most_and_outside_the_end_is_taken(
    grid, shares
):
    x = reals_around(grid, shares)
    snapped = grid.snap(x)
    # The quotient by the scale is rounded, at most by one part in 2^53 of the largest integer.
    slack = float(grid.scale) * 1e-9
    inside = np.clip(x, grid.smallest, grid.largest)
    assert np.all(np.abs(snapped - inside) <= float(grid.scale) / 2 + slack)
    np.testing.assert_array_equal(snapped[x < grid.smallest], grid.smallest)
    np.testing.assert_array_equal(snapped[x > grid.largest], grid.largest)


@given(qparams(), shares)
def test_integers_are_whole_and_within_the_bounds(grid, shares):
    integers = grid.integers(reals_around(grid, shares))
    np.testing.assert_array_equal(integers, np.rint(integers))
    assert integers.min() >= grid.low
    assert integers.max() <= grid.high


@given(qparams())
def test_zero_and_the_ends_have_the_integers_that_they_say(grid):
    np.testing.assert_array_equal(grid.integers(np.zeros(1)), grid.zero_point)
    np.testing.assert_array_equal(grid.integers(np.array([grid.smallest])), grid.low)
    np.testing.assert_array_equal(grid.integers(np.array([grid.largest])), grid.high)


@pytest.mark.parametrize("bits", LIMITS)
def test_the_bits_follow_from_the_largest_integer(bits):
    low, high = LIMITS[bits]
    assert QuantParams(np.array(1.0), 0, low, high).bits == bits
    assert QuantParams(np.array(1.0), 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).bits == bits


def test_a_scale_per_channel_goes_along_the_last_axis():
    grid = QuantParams(np.array([1.0, 0.5]), 0, -127, 127)
    np.testing.assert_array_equal(
        grid.snap(np.array([[0.6, 0.6], [200, 200]])), [[1, 0.5], [127, 63.5]]
    )


def test_in_float_every_step_computes_what_the_interpreter_does():
    plan = expand(fold(random_plan(TINY)), normalization=False)
    images = random_images(plan, 3)
    seen = {}
    logits = tensors(QuantizedPlan(plan), images, seen.__setitem__)
    np.testing.assert_array_equal(logits, interpret(plan, images))
    for step in plan.steps:
        np.testing.assert_array_equal(
            seen[step.output], compute(step, *(seen[name] for name in step.inputs))
        )


@pytest.mark.parametrize("wrap", [lambda plan: plan, QuantizedPlan])
def test_every_tensor_is_seen_once_and_in_order_the_image_first(wrap):
    plan = expand(fold(random_plan(TINY)))
    images = random_images(plan)
    names, shapes = [], {}

    def see(name, x):
        names.append(name)
        shapes[name] = x.shape

    tensors(wrap(plan), images, see)
    assert names == list(plan.shapes) == ["image", *(step.output for step in plan.steps)]
    assert shapes == {name: (2, *shape) for name, shape in plan.shapes.items()}


def test_a_tensor_that_is_read_twice_by_one_step_and_late_is_still_there():
    plan = Plan(
        (1, 2, 3),
        (
            steps.Multiply("square", ("image", "image")),
            steps.Add("twice", ("square", "square")),
            steps.Subtract("logits", ("twice", "image")),
        ),
    )
    images = random_images(plan)
    wanted = 2.0 * images.astype(float) ** 2 - images
    np.testing.assert_array_equal(tensors(plan, images), wanted)


def test_a_static_step_reads_and_makes_what_is_on_the_grids():
    plan = Plan((1, 1, 4), (steps.Gelu("logits", ("image",), False),))
    fine, coarse = (
        QuantParams(np.array(0.25), 3, -128, 127),
        QuantParams(np.array(0.5), -10, -128, 127),
    )
    quantized = QuantizedPlan(
        plan, {"image": fine, "logits": coarse}, {"logits": OpQuantConfig("static", True)}
    )
    x = np.random.default_rng(0).normal(size=(5, 1, 1, 4)) * 40
    found = quantized.compute(plan.steps[0], x)
    np.testing.assert_array_equal(found, coarse.snap(compute(plan.steps[0], fine.snap(x))))
    assert np.any(found != compute(plan.steps[0], x))


def test_a_static_step_without_output_grid_hands_on_floats():
    plan = Plan((1, 1, 4), (steps.Gelu("logits", ("image",), False),))
    grid = QuantParams(np.array(0.25), 3, -128, 127)
    quantized = QuantizedPlan(plan, {"image": grid}, {"logits": OpQuantConfig("static", False)})
    x = np.random.default_rng(0).normal(size=(5, 1, 1, 4))
    np.testing.assert_array_equal(
        quantized.compute(plan.steps[0], x), compute(plan.steps[0], grid.snap(x))
    )


def spanning(x, low, high):
    """Returns values on the 256 places from low to high, 0 being one of them."""
    scale = (high - low) / 255
    zero_point = np.rint(-128 - low / scale)
    return (np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point) * scale


@pytest.mark.parametrize("rows", [True, False])
def test_a_dynamic_dense_layer_has_a_grid_for_each_row_or_for_each_image(rows):
    random = np.random.default_rng(1)
    step = steps.Dense("logits", ("image",), random.normal(size=(6, 5)), random.normal(size=5))
    quantized = QuantizedPlan(
        Plan((3, 1, 6), (step,)), {}, {"logits": OpQuantConfig("dynamic")}, rows
    )
    # Rows of very different size, and images too: who shares a grid shows.
    x = random.normal(size=(2, 3, 1, 6)) * np.array([[1, 10, 100], [7, 70, 700]])[..., None, None]
    wanted = np.empty_like(x)
    for image, part in enumerate(x):
        for row, values in enumerate(part):
            of = values if rows else part
            wanted[image, row] = spanning(values, of.min(), of.max())
    np.testing.assert_allclose(quantized.compute(step, x), compute(step, wanted), rtol=1e-12)


def test_a_dynamic_convolution_has_one_grid_for_each_image():
    random = np.random.default_rng(1)
    step = steps.Conv("logits", ("image",), random.normal(size=(2, 2, 3, 4)), relu=False)
    quantized = QuantizedPlan(Plan((4, 4, 3), (step,)), {}, {"logits": OpQuantConfig("dynamic")})
    x = random.normal(size=(2, 4, 4, 3)) * np.array([1, 50])[:, None, None, None]
    wanted = np.stack([spanning(part, part.min(), part.max()) for part in x])
    np.testing.assert_allclose(quantized.compute(step, x), compute(step, wanted), atol=1e-10)


@pytest.mark.parametrize("values", [[0, 0, 0], [2, 3, 4], [-4, -3, -2]])
def test_a_dynamic_grid_has_a_place_for_zero_even_where_all_values_are_on_one_side(values):
    step = steps.Dense("logits", ("image",), np.eye(3))
    quantized = QuantizedPlan(Plan((1, 1, 3), (step,)), {}, {"logits": OpQuantConfig("dynamic")})
    found = quantized.compute(step, np.array([[[values]]], float))
    half = max(map(abs, values)) / 255 / 2
    np.testing.assert_allclose(found, [[[values]]], rtol=0, atol=half * (1 + 1e-9))


def test_a_plan_is_in_integers_only_if_every_step_reads_and_makes_those_of_these_bits():
    plan = expand(fold(random_plan(TINY)), normalization=False)
    static = all_of(plan, "static")
    assert static.in_integers(8)
    assert not static.in_integers(16)
    assert not all_of(plan, "dynamic").in_integers(8)
    assert not QuantizedPlan(plan).in_integers(8)
    for broken in (OpQuantConfig("float", True), OpQuantConfig("static", False), OpQuantConfig()):
        changed = {**static.configs, plan.output: broken}
        assert not QuantizedPlan(plan, static.qparams, changed).in_integers(8)
    finer = {**static.qparams, plan.output: QuantParams(np.array(1.0), 0, -32767, 32767)}
    assert not QuantizedPlan(plan, finer, static.configs).in_integers(8)


def test_a_static_plan_holds_nothing_but_places_of_its_grids():
    plan = expand(fold(random_plan(TINY)), normalization=False)
    quantized = all_of(plan, "static")
    held = []

    def see(name, x):
        if name != plan.INPUT:
            np.testing.assert_array_equal(x, quantized.qparams[name].snap(x))
            held.append(name)

    tensors(quantized, random_images(plan), see)
    assert held == [step.output for step in plan.steps]
