"""Post-training quantization: which steps are quantized, with which parameters and statistics."""

from dataclasses import replace

import numpy as np
import pytest
from plans import of_kind, random_images, random_plan

from cct_export.graph import steps
from cct_export.graph.expand import expand
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.quantize import ranges
from cct_export.quantize.modes import is_small, quantization_modes
from cct_export.quantize.params import activation_params, pixel_params, softmax_output_params
from cct_export.quantize.ptq import calibrated_tensors, quantize
from cct_export.quantize.schemes import BY_FORMAT, SCHEMES
from cct_export.quantize.statistics import collect
from cct_export.specs import CalibrationSpec, ModelSpec

SPEC = ModelSpec(
    filters=(4, 64), mlp_units=(64, 64), heads=2, head_dim=24, layers=1, image_size=12, classes=3
)
INT8, FULL, WIDE = SCHEMES["int8"], SCHEMES["int8-full"], SCHEMES["int16x8"]
PRESERVING = steps.Reshape | steps.Transpose | steps.Slice | steps.MaxPool | steps.ZeroPad
CASES = [(format, name) for format, schemes in BY_FORMAT.items() for name in schemes]
each_scheme = pytest.mark.parametrize(("format", "name"), CASES)


@pytest.fixture(scope="module")
def plan():
    return expand(fold(random_plan(SPEC)), layer_norm=False)


@pytest.fixture(scope="module")
def known(plan):
    return collect(plan, random_images(plan, 6), "random pixels")


@each_scheme
def test_steps_that_are_kept_float_are_not_quantized(plan, known, format, name):
    scheme = BY_FORMAT[format][name]
    float_steps = ["tokenizer/1/conv", "block_0/mlp_0", "block_0/attention/scores"]
    before = quantization_modes(plan, scheme)
    modes = quantization_modes(plan, scheme, float_steps)
    assert {modes[output] for output in float_steps} == {"float"}
    quantized = quantize(plan, scheme, known, CalibrationSpec(floats=float_steps))
    for output in float_steps:
        step = quantized.plan.producer(output)
        config = quantized.config(step)
        assert (config.inputs, config.quantized_output, config.weights) == ("float", False, None)
        if not isinstance(step, steps.MatMul):
            assert step.kernel is plan.producer(output).kernel
    pools = {step.output for step in of_kind(plan, steps.MaxPool)}
    assert {name for name in modes if modes[name] != before[name]} <= {*float_steps, *pools}


@each_scheme
def test_kernels_are_representable_or_unchanged(plan, known, format, name):
    scheme = BY_FORMAT[format][name]
    quantized = quantize(plan, scheme, known if scheme.quantizes_weights else None)
    for before, step in zip(plan.steps, quantized.plan.steps, strict=True):
        assert type(step) is type(before)
        assert (step.output, step.inputs) == (before.output, before.inputs)
        if not isinstance(step, steps.Conv | steps.Dense):
            continue
        config = quantized.config(step)
        small = isinstance(step, steps.Dense) and is_small(plan, step)
        if not scheme.quantizes_weights or (small and not scheme.integers_only):
            assert config.weights is None
            half = config.float16_weights
            expected = before.kernel.astype(np.float16) if half else before.kernel
            np.testing.assert_array_equal(step.kernel, expected)
            continue
        int4 = name == "int4-weight" and isinstance(step, steps.Dense)
        assert config.weights.bits == (4 if int4 else 8)
        representable = config.weights.fake_quantize(step.kernel).astype(np.float32)
        np.testing.assert_array_equal(representable, step.kernel)
        assert np.any(step.kernel != before.kernel)


def test_fp16_stores_every_weight_as_float16(plan):
    quantized = quantize(plan, SCHEMES["fp16"], None)
    outputs = {s.output for s in quantized.plan.steps if quantized.config(s).float16_weights}
    weighted = of_kind(plan, steps.Conv | steps.Dense | steps.AddConstant)
    assert outputs == {step.output for step in weighted}


@pytest.mark.parametrize("scheme", [FULL, WIDE], ids=lambda scheme: scheme.name)
def test_integer_only_schemes_quantize_all_tensors_and_all_constants(plan, known, scheme):
    quantized = quantize(plan, scheme, known)
    assert set(quantized.qparams) == set(plan.shapes)
    assert {params.bits for params in quantized.qparams.values()} == {scheme.bits}
    assert quantized.is_integer_only(scheme.bits)
    for step in quantized.plan.steps:
        params = quantized.config(step).weights
        assert (params is not None) == bool(list(step.arrays()))
        if isinstance(step, steps.AddConstant):
            np.testing.assert_array_equal(params.fake_quantize(step.value), step.value)
        if isinstance(step, steps.Scale):
            np.testing.assert_array_equal(params.fake_quantize(step.scale), step.scale)


@pytest.mark.parametrize("scheme", [INT8, FULL, WIDE], ids=lambda scheme: scheme.name)
def test_the_second_operands_of_integer_products_are_symmetric(plan, known, scheme):
    quantized = quantize(plan, scheme, known)
    products = [s for s in of_kind(plan, steps.MatMul) if quantized.config(s).inputs == "static"]
    assert len(products) == (2 if scheme is INT8 else 3)  # the other one pools
    for step in products:
        params = quantized.qparams[step.inputs[1]]
        assert (params.zero_point, params.qmin) == (0, -params.qmax - 1)


@pytest.mark.parametrize("scheme", [INT8, FULL, WIDE], ids=lambda scheme: scheme.name)
def test_value_preserving_steps_keep_the_parameters_of_their_input(plan, known, scheme):
    quantized = quantize(plan, scheme, known)
    preserving = [s for s in of_kind(plan, PRESERVING) if quantized.config(s).inputs == "static"]
    assert preserving
    for step in preserving:
        assert quantized.qparams[step.output] is quantized.qparams[step.inputs[0]]


def test_pixels_and_softmax_outputs_have_prescribed_parameters(plan, known):
    quantized = quantize(plan, FULL, known)
    for bits in (8, 16):
        exact = pixel_params(bits).fake_quantize(np.arange(256.0))
        np.testing.assert_allclose(exact, np.arange(256), rtol=1e-12)
    pixels = quantized.qparams["image"]
    assert (float(pixels.scale), pixels.zero_point) == (1, -128)
    (attention,) = [s.output for s in of_kind(plan, steps.Softmax) if "attention" in s.output]
    weights = quantized.qparams[attention]
    assert (float(weights.scale), weights.zero_point) == (1 / 256, -128)
    for bits, symmetric in ((8, False), (16, False), (16, True)):
        pixels, weights = pixel_params(bits, symmetric), softmax_output_params(bits, symmetric)
        assert pixels.bits == weights.bits == bits
        assert float(pixels.max_value) == pytest.approx(255)
        assert float(weights.max_value) == pytest.approx(1, abs=4 / 2**bits)
        assert float(weights.fake_quantize(np.zeros(1))[0]) == 0


def test_what_gelu_makes_zero_is_clipped(plan, known):
    (before,) = [s.inputs[0] for s in of_kind(plan, steps.Gelu) if s.inputs[0].endswith("mlp_0")]
    wide = replace(known.histograms[before], low=-9.0, high=5.0)
    widened = replace(known, histograms={**known.histograms, before: wide})
    narrow, wide = (quantize(plan, scheme, widened).qparams[before] for scheme in (FULL, WIDE))
    assert float(narrow.min_value) == pytest.approx(-4, abs=0.05)
    assert float(wide.min_value) < -9


@pytest.mark.parametrize("image_size", [12, 24])  # softmaxes of 9 and of 36 weights
def test_weighted_sums_never_multiply_the_smallest_integer_by_itself(image_size):
    folded = fold(random_plan(replace(SPEC, image_size=image_size)))
    plan = expand(folded, layer_norm=False, softmax=False)
    assert bool(of_kind(plan, steps.Exp)) == (image_size == 24)
    images = random_images(plan, 6)
    products = [step for step in of_kind(plan, steps.MatMul) if "sum" in step.output]
    assert len(products) == 2  # of attention and of pooling
    known = collect(plan, images, "random pixels")
    for product in products:  # an outlier that every other range clips
        name = product.inputs[1]
        while isinstance(plan.producer(name), PRESERVING):
            name = plan.producer(name).inputs[0]
        histogram = known.histograms[name]
        counts = np.zeros_like(histogram.counts)
        counts[[0, len(counts) // 2]] = 1, 1e9
        known.histograms[name] = replace(histogram, counts=counts, low=-100.0)
    quantized = quantize(plan, FULL, known)
    for product in products:
        weights, values = (quantized.qparams[name] for name in product.inputs)
        zero_is_smallest = float(weights.min_value) == 0
        assert zero_is_smallest == (image_size == 12)
        clipped = float(values.max_value) < 99
        assert clipped != zero_is_smallest


def affine(params):
    return float(params.scale), params.zero_point


@each_scheme
def test_quantize_needs_only_the_statistics_of_calibrated_tensors(plan, known, format, name):
    scheme = BY_FORMAT[format][name]
    tensors = calibrated_tensors(plan, scheme)
    assert tensors <= set(plan.shapes)
    assert bool(tensors) == scheme.quantizes_weights
    weighted = [s for s in of_kind(plan, steps.Conv | steps.Dense) if s.inputs[0] in tensors]
    part = replace(
        known,
        histograms={name: known.histograms[name] for name in tensors},
        second_moments={s.output: known.second_moments[s.output] for s in weighted},
    )
    with_all, with_part = (
        quantize(plan, scheme, statistics if scheme.quantizes_weights else None).qparams
        for statistics in (known, part)
    )
    assert {n: affine(p) for n, p in with_part.items()} == {
        n: affine(p) for n, p in with_all.items()
    }
    assert set(with_all) <= tensors


@pytest.mark.parametrize("output", ["tokenizer/0/conv", "logits"])
def test_missing_statistics_are_named(plan, known, output):
    assert output in calibrated_tensors(plan, FULL)
    histograms = {name: h for name, h in known.histograms.items() if name != output}
    with pytest.raises(KeyError, match=output):
        quantize(plan, FULL, replace(known, histograms=histograms))


def test_each_tensor_can_have_its_own_range_method(plan, known):
    name = "tokenizer/0/conv"
    for method in ranges.METHODS:
        params = quantize(plan, INT8, known, CalibrationSpec(methods={name: method})).qparams[name]
        value_range = ranges.METHODS[method](known.histograms[name], 8)
        assert affine(params) == affine(activation_params(value_range, 8))
    other = "tokenizer/1/conv"
    params = quantize(plan, INT8, known, CalibrationSpec(methods={name: "min-max"})).qparams[other]
    assert float(params.scale) == float(quantize(plan, INT8, known).qparams[other].scale)


def test_16_bits_clip_nothing_with_any_range_method(plan, known):
    quantized = quantize(plan, WIDE, known, CalibrationSpec(methods="percentile"))
    for name, params in quantized.qparams.items():
        if isinstance(plan.producer(name), steps.Softmax):
            continue
        assert ranges.clipped_share(known.histograms[name], params) == 0


def test_weights_are_rounded_by_gptq_or_to_the_nearest(plan, known):
    nearest = quantize(plan, INT8, known, CalibrationSpec(rounding="nearest"))
    gptq = quantize(plan, INT8, known)
    differences = 0
    for before, near, step in zip(plan.steps, nearest.plan.steps, gptq.plan.steps, strict=True):
        params = nearest.config(near).weights
        if params is not None:
            expected = params.fake_quantize(before.kernel).astype(np.float32)
            np.testing.assert_array_equal(near.kernel, expected)
            differences += np.any(near.kernel != step.kernel)
    assert differences


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_the_scale_of_tiny_weights_is_widened_until_the_bias_fits_into_32_bits(kind):
    kernel = np.random.default_rng(0).normal(size=(1, 1, 2, 3) if kind == "conv" else (2, 3))
    kernel[..., 0] *= 1e-12
    make = steps.Conv if kind == "conv" else steps.Dense
    plan = Plan((4, 4, 2), (make("logits", ("image",), kernel, np.full(3, 0.5)),))
    known = collect(plan, random_images(plan, 4), "random pixels")
    quantized = quantize(plan, FULL, known)
    scale = quantized.configs["logits"].weights.scale * quantized.qparams["image"].scale
    assert np.all(0.5 / scale <= 2**30 * (1 + 1e-9))
    assert 0.5 / scale[0] == pytest.approx(2**30)
    (step,) = quantized.plan.steps
    np.testing.assert_array_equal(step.kernel[..., 0], 0)
    assert np.all(np.abs(step.kernel - kernel)[..., 1:] < 0.1)


def test_the_scale_of_an_almost_constant_output_is_one_that_engines_can_rescale_to():
    kernel = np.eye(2)
    plan = Plan((1, 4, 2), (steps.Dense("logits", ("image",), kernel * 1e-9, np.ones(2)),))
    known = collect(plan, random_images(plan, 4), "random pixels")
    quantized = quantize(plan, FULL, known)
    sums = float(np.max(quantized.configs["logits"].weights.scale))
    assert sums / float(quantized.qparams["logits"].scale) <= 128
