"""Which steps of a plan become integers, on which qparams, and what has to be known for it."""

from dataclasses import replace

import numpy as np
import pytest
from plans import random_images, random_plan

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.quantize import ranges
from cct_export.quantize.ptq import is_small, modes, needed, pixels, quantize, shares
from cct_export.quantize.schemes import BY_FORMAT, SCHEMES
from cct_export.quantize.statistics import gather
from cct_export.specs import ModelSpec

SPEC = ModelSpec(
    filters=(4, 64), mlp_units=(64, 64), heads=2, head_dim=24, layers=1, image_size=12, classes=3
)
INT8, FULL, WIDE = SCHEMES["int8"], SCHEMES["int8-full"], SCHEMES["int16x8"]
MOVING = steps.Reshape | steps.Transpose | steps.Slice | steps.MaxPool | steps.ZeroPad
CASES = [(format, name) for format, schemes in BY_FORMAT.items() for name in schemes]
each_scheme = pytest.mark.parametrize(("format", "name"), CASES)


@pytest.fixture(scope="module")
def plan():
    return expand(fold(random_plan(SPEC)), normalization=False)


@pytest.fixture(scope="module")
def known(plan):
    return gather(plan, random_images(plan, 6), "random pixels")


def of_kind(plan, kind):
    return [step for step in plan.steps if isinstance(step, kind)]


def dense(plan, few):
    layers = of_kind(plan, steps.Dense)
    found = [step.output for step in layers if is_small(plan, step) == few]
    assert found
    return found


@each_scheme
def test_every_step_has_a_mode_and_convolutions_and_large_dense_layers_that_of_the_scheme(
    plan, format, name
):
    scheme = BY_FORMAT[format][name]
    found = modes(plan, scheme)
    assert set(found) == {step.output for step in plan.steps}
    assert {found[step.output] for step in of_kind(plan, steps.Conv)} == {scheme.convolution}
    assert {found[output] for output in dense(plan, few=False)} == {scheme.dense}
    assert found["block_0/attention/scores"] == scheme.scores
    others = [s for s in plan.steps if not isinstance(s, steps.Conv | steps.Dense | steps.MaxPool)]
    rest = {found[s.output] for s in others if s.output != "block_0/attention/scores"}
    assert rest == {scheme.rest}


def test_small_dense_layers_stay_float_where_floats_are_allowed(plan):
    few = dense(plan, few=True)
    assert {"pooling/scores", "logits"} <= set(few)
    for scheme in SCHEMES.values():
        expected = "static" if scheme.integers_only else "float"
        assert {modes(plan, scheme)[output] for output in few} == {expected}


def test_only_products_that_a_softmax_reads_are_scores(plan):
    found = modes(plan, INT8)
    products = [step.output for step in of_kind(plan, steps.MatMul)]
    assert len(products) == 3
    assert [name for name in products if found[name] == "static"] == ["block_0/attention/scores"]


def pooled(first):
    """A plan of a pool behind a convolution or behind a curve, and a convolution that reads it."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 2))
    made = steps.Conv("a", ("image",), kernel) if first == "conv" else None
    return Plan(
        (12, 12, 2),
        (
            made or steps.Gelu("a", ("image",), False),
            steps.ZeroPad("z", ("a",), ((1, 1), (1, 1))),
            steps.MaxPool("p", ("z",), (2, 2), (2, 2)),
            steps.Conv("logits", ("p",), kernel),
        ),
    )


def test_a_pool_between_integers_is_in_integers_and_behind_floats_in_float():
    assert modes(pooled("conv"), INT8)["p"] == modes(pooled("conv"), INT8)["z"] == "static"
    assert modes(pooled("gelu"), INT8)["p"] == modes(pooled("gelu"), INT8)["z"] == "float"
    dynamic = SCHEMES["int8-dynamic"]
    assert modes(pooled("conv"), dynamic)["p"] == "float"


def test_a_pool_behind_a_convolution_that_is_kept_float_is_float_too():
    found = modes(pooled("conv"), INT8, ["a"])
    assert (found["a"], found["z"], found["p"], found["logits"]) == (
        "float",
        "float",
        "float",
        "static",
    )


@each_scheme
def test_what_is_kept_float_has_neither_grid_nor_integers(plan, known, format, name):
    scheme = BY_FORMAT[format][name]
    kept = ["tokenizer/1/conv", "block_0/mlp_0", "block_0/attention/scores"]
    before = modes(plan, scheme)
    found = modes(plan, scheme, kept)
    assert {found[output] for output in kept} == {"float"}
    made = quantize(plan, scheme, known, floats=kept)
    for output in kept:
        step = made.plan.producer(output)
        config = made.config(step)
        assert (config.inputs, config.output, config.constants) == ("float", False, None)
        if not isinstance(step, steps.MatMul):
            assert step.kernel is plan.producer(output).kernel
    pools = {step.output for step in of_kind(plan, steps.MaxPool)}
    assert {name for name in found if found[name] != before[name]} <= {*kept, *pools}


@each_scheme
def test_kernels_lie_on_their_grids_or_are_left_as_they_are(plan, known, format, name):
    scheme = BY_FORMAT[format][name]
    made = quantize(plan, scheme, known if scheme.rounds else None)
    for before, step in zip(plan.steps, made.plan.steps, strict=True):
        assert (type(step), step.output, step.inputs) == (
            type(before),
            before.output,
            before.inputs,
        )
        if not isinstance(step, steps.Conv | steps.Dense):
            continue
        grid = made.config(step).constants
        small = isinstance(step, steps.Dense) and is_small(plan, step)
        if not scheme.rounds or (small and not scheme.integers_only):
            assert grid is None
            half = made.config(step).half
            same = before.kernel.astype(np.float16) if half else before.kernel
            np.testing.assert_array_equal(step.kernel, same)
            continue
        assert grid.bits == (4 if name == "int4-weight" and isinstance(step, steps.Dense) else 8)
        np.testing.assert_array_equal(grid.snap(step.kernel), step.kernel)
        assert np.any(step.kernel != before.kernel)


def test_float16_is_asked_of_every_kernel(plan):
    made = quantize(plan, SCHEMES["fp16"], None)
    halves = {step.output for step in made.plan.steps if made.config(step).half}
    assert halves == {
        step.output for step in of_kind(plan, steps.Conv | steps.Dense | steps.AddConstant)
    }


@pytest.mark.parametrize("scheme", [FULL, WIDE], ids=lambda scheme: scheme.name)
def test_integers_only_have_grids_for_all_tensors_and_all_constants(plan, known, scheme):
    made = quantize(plan, scheme, known)
    assert set(made.qparams) == set(plan.shapes)
    assert {grid.bits for grid in made.qparams.values()} == {scheme.bits}
    assert made.in_integers(scheme.bits)
    for step in made.plan.steps:
        grid = made.config(step).constants
        assert (grid is not None) == bool(list(step.arrays()))
        if isinstance(step, steps.AddConstant):
            np.testing.assert_array_equal(grid.snap(step.value), step.value)
        if isinstance(step, steps.Scale):
            np.testing.assert_array_equal(grid.snap(step.scale), step.scale)


@pytest.mark.parametrize("scheme", [INT8, FULL, WIDE], ids=lambda scheme: scheme.name)
def test_the_second_operands_of_integer_products_are_symmetric(plan, known, scheme):
    made = quantize(plan, scheme, known)
    products = [s for s in of_kind(plan, steps.MatMul) if made.config(s).inputs == "static"]
    assert len(products) == (1 if scheme is INT8 else 3)
    for step in products:
        grid = made.qparams[step.inputs[1]]
        assert (grid.zero_point, grid.low) == (0, -grid.high - 1)


@pytest.mark.parametrize("scheme", [INT8, FULL, WIDE], ids=lambda scheme: scheme.name)
def test_what_only_moves_values_keeps_their_grid(plan, known, scheme):
    made = quantize(plan, scheme, known)
    moving = [
        step
        for step in plan.steps
        if isinstance(step, MOVING) and made.config(step).inputs == "static"
    ]
    assert moving
    for step in moving:
        assert made.qparams[step.output] is made.qparams[step.inputs[0]]


def test_pixels_and_shares_have_the_grids_that_are_prescribed(plan, known):
    made = quantize(plan, FULL, known)
    np.testing.assert_array_equal(pixels(8).snap(np.arange(256.0)), np.arange(256))
    assert (float(made.qparams["image"].scale), made.qparams["image"].zero_point) == (1, -128)
    (weights,) = [s.output for s in of_kind(plan, steps.Softmax) if "attention" in s.output]
    assert (float(made.qparams[weights].scale), made.qparams[weights].zero_point) == (1 / 256, -128)
    for bits in (8, 16):
        assert pixels(bits).bits == shares(bits).bits == bits
        assert float(pixels(bits).largest) == pytest.approx(255)
        assert float(shares(bits).largest) == pytest.approx(1, abs=2 / 2**bits * 2)
        assert float(shares(bits).snap(np.zeros(1))[0]) == 0


@each_scheme
def test_quantize_reads_no_more_than_what_is_needed(plan, known, format, name):
    scheme = BY_FORMAT[format][name]
    names = needed(plan, scheme)
    assert names <= set(plan.shapes)
    assert bool(names) == scheme.rounds
    weighted = [s.output for s in of_kind(plan, steps.Conv | steps.Dense)]
    only = replace(
        known,
        distributions={n: v for n, v in known.distributions.items() if n in names},
        moments={n: known.moments[n] for n in weighted if plan.producer(n).inputs[0] in names},
    )
    whole = quantize(plan, scheme, known if scheme.rounds else None)
    part = quantize(plan, scheme, only if scheme.rounds else None)
    assert {n: (float(g.scale), g.zero_point) for n, g in part.qparams.items()} == {
        n: (float(g.scale), g.zero_point) for n, g in whole.qparams.items()
    }
    assert set(whole.qparams) <= names


@pytest.mark.parametrize("output", ["tokenizer/0/conv", "logits"])
def test_a_tensor_that_is_needed_and_not_known_is_no_secret(plan, known, output):
    names = needed(plan, FULL)
    assert output in names
    less = {n: v for n, v in known.distributions.items() if n != output}
    with pytest.raises(KeyError, match=output):
        quantize(plan, FULL, replace(known, distributions=less))


def test_a_method_can_be_chosen_for_each_tensor(plan, known):
    name = "tokenizer/0/conv"
    values = known.distributions[name]
    found = {
        method: quantize(plan, INT8, known, {name: method}).qparams[name]
        for method in ranges.METHODS
    }
    for method, grid in found.items():
        wanted = ranges.grid(ranges.METHODS[method](values, 8), 8)
        assert (float(grid.scale), grid.zero_point) == (float(wanted.scale), wanted.zero_point)
    others = quantize(plan, INT8, known, {name: "min-max"}).qparams["tokenizer/1/conv"]
    assert float(others.scale) == float(
        quantize(plan, INT8, known).qparams["tokenizer/1/conv"].scale
    )


def test_16_bits_clip_nothing_whatever_method_is_asked_for(plan, known):
    made = quantize(plan, WIDE, known, "percentile")
    for name, grid in made.qparams.items():
        if isinstance(plan.producer(name), steps.Softmax):
            continue
        assert ranges.clipped_share(known.distributions[name], grid) == 0


def test_rounding_is_learned_or_nearest_as_asked(plan, known):
    nearest = quantize(plan, INT8, known, learn=False)
    learned = quantize(plan, INT8, known)
    differ = 0
    for before, near, best in zip(plan.steps, nearest.plan.steps, learned.plan.steps, strict=True):
        grid = nearest.config(near).constants
        if grid is not None:
            np.testing.assert_array_equal(near.kernel, grid.snap(before.kernel))
            differ += np.any(near.kernel != best.kernel)
    assert differ
