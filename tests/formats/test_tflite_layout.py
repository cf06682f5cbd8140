"""Layouts of a plan for LiteRT and TFLite Micro: other steps, the same values."""

from dataclasses import replace

import numpy as np
import pytest
from emitted import run_tflite
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cct_export.data.sampling import photo_crops
from cct_export.formats import tflite, tflite_layout
from cct_export.graph import steps
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, evaluate
from cct_export.quantize.params import pixel_params
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import SCHEMES
from cct_export.quantize.statistics import collect
from cct_export.specs import ExportSpec

SPEC = ExportSpec("tflite", "int8-full", "int8", target="tflm")
PAD = st.tuples(st.integers(0, 3), st.integers(0, 3))


def quantized(plan, spec=SPEC):
    """Returns a plan in integers, and images."""
    plan = tflite.legalize(fold(plan), spec)
    images = photo_crops(plan.image_shape, 8, 2)
    return quantize(plan, SCHEMES[spec.scheme], collect(plan, images, "crops")), images


@pytest.mark.parametrize("heads", [1, 2])
def test_transposed_operands_change_no_value(small_spec, heads):
    from cct_export.graph.lower import lower
    from cct_export.model.cct import CCT

    plan, images = quantized(lower(CCT(replace(small_spec, heads=heads))))
    transposed = tflite_layout.with_transposed_operands(plan, everywhere=True)
    products = [step for step in transposed.plan.steps if isinstance(step, steps.MatMul)]
    assert products
    assert all(step.transpose_b for step in products)
    np.testing.assert_array_equal(evaluate(transposed, images), evaluate(plan, images))
    some = tflite_layout.with_transposed_operands(plan, everywhere=False)
    assert len(some.plan.steps) == len(plan.plan.steps)
    np.testing.assert_array_equal(evaluate(some, images), evaluate(plan, images))


def test_pools_pad_no_more_than_their_windows_reach():
    pool = steps.MaxPool("logits", ("image",), (3, 3), (2, 2), ((1, 1), (1, 1)))
    params = {"image": pixel_params(8), "logits": pixel_params(8)}
    plan = QuantizedPlan(
        Plan((8, 9, 3), (pool,)), params, {"logits": OpQuantConfig("static", True)}
    )
    less = tflite_layout.without_unused_padding(plan)
    (step,) = less.plan.steps
    assert step.pads == ((1, 0), (1, 1))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3))
    np.testing.assert_array_equal(evaluate(less, images), evaluate(plan, images))


def convolution(shape, kernel, strides, pads, *, scheme="int8-full", relu=True):
    """Returns a quantized plan of one convolution and a mean, and its spec."""
    random = np.random.default_rng(len(shape))
    weights = random.normal(size=(*kernel, shape[2], 5))
    conv = steps.Conv("conv", ("image",), weights, random.normal(size=5), strides, pads, relu)
    plan = Plan(shape, (conv, steps.GlobalPool("logits", ("conv",))))
    images = random.integers(0, 256, (3, *shape), np.uint8)
    known = collect(plan, images, "random pixels")
    return quantize(plan, SCHEMES[scheme], known), images


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(4, 9), st.integers(4, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(PAD, PAD),
    st.sampled_from(["int8-full", "int8", "int8-dynamic", "none", "int16x8"]),
)
def test_pairs_of_pixels_change_no_value(shape, kernel, strides, pads, scheme):
    fits = (
        size + sum(pad) >= window for size, pad, window in zip(shape, pads, kernel, strict=False)
    )
    assume(all(fits))
    plan, images = convolution(shape, kernel, strides, pads, scheme=scheme)
    paired = tflite_layout.over_pairs_of_pixels(plan)
    assert paired.plan.shapes["conv"] == plan.plan.shapes["conv"]
    np.testing.assert_array_equal(evaluate(paired, images), evaluate(plan, images))


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "pads"),
    [
        ((8, 8, 3), (3, 3), (1, 1), ((1, 1), (1, 1))),  # the first convolution of a CCT
        ((8, 8, 3), (3, 3), (1, 1), steps.NO_PADS),
        ((14, 14, 3), (7, 7), (2, 2), ((3, 3), (3, 3))),  # of a CCT for 224 × 224
        ((9, 11, 1), (3, 5), (3, 1), ((0, 0), (2, 1))),  # grey, other strides and padding
    ],
)
@pytest.mark.parametrize("scheme", ["int8-full", "int8", "int8-dynamic"])
def test_litert_gives_the_same_bits_over_pairs(shape, kernel, strides, pads, scheme, monkeypatch):
    plan, images = convolution(shape, kernel, strides, pads, scheme=scheme)
    paired = tflite_layout.over_pairs_of_pixels(plan)
    (conv,) = [step for step in paired.plan.steps if isinstance(step, steps.Conv)]
    assert conv.kernel.shape[2] == 2 * shape[2]
    spec = ExportSpec("tflite", scheme, "uint8")
    over_pairs = run_tflite(tflite.emit(plan, spec), images)
    monkeypatch.setattr(tflite_layout, "over_pairs_of_pixels", lambda plan: plan)
    np.testing.assert_array_equal(over_pairs, run_tflite(tflite.emit(plan, spec), images))


@pytest.mark.parametrize(
    ("shape", "kernel", "strides"),
    [
        ((8, 8, 8), (3, 3), (1, 1)),  # nothing is filled up
        ((8, 8, 5), (3, 3), (1, 1)),  # pairs would be filled up to 16 channels
        ((8, 7, 3), (3, 3), (1, 1)),  # an odd width
        ((8, 8, 3), (3, 3), (1, 3)),  # windows begin in the middle of a pair
    ],
)
def test_a_convolution_that_pairs_do_not_fit_stays(shape, kernel, strides):
    plan, _ = convolution(shape, kernel, strides, steps.NO_PADS)
    paired = tflite_layout.over_pairs_of_pixels(plan)
    assert [step.kind for step in paired.plan.steps] == [step.kind for step in plan.plan.steps]


def test_wide_activations_and_floats_stay():
    for scheme in ("int16x8", "none"):
        plan, _ = convolution((8, 8, 3), (3, 3), (1, 1), steps.NO_PADS, scheme=scheme)
        assert len(tflite_layout.over_pairs_of_pixels(plan).plan.steps) == 2
