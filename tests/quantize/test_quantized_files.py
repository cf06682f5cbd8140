"""Files of quantized plans compute in their engines what simulated quantization predicts."""

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from emitted import read_tflite, run_onnx, run_tflite
from plans import of_kind, random_images

from cct_export.data.sampling import photo_crops
from cct_export.export.draft import prepared
from cct_export.formats import FORMATS
from cct_export.formats.tflite_layout import with_transposed_operands
from cct_export.graph import steps
from cct_export.graph.lowering import lower_model
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan, evaluate
from cct_export.model.cct import CCT
from cct_export.quantize.modes import is_small
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import BY_FORMAT
from cct_export.quantize.statistics import Statistics, collect
from cct_export.specs import CalibrationSpec, ExportSpec, ModelSpec

# Wide enough for dense layers that schemes quantize.
WIDE = ModelSpec(
    filters=(8, 64), mlp_units=(80, 64), heads=2, head_dim=48, layers=1, image_size=16, classes=5
)
ARCHITECTURES = {
    "one head": replace(WIDE, heads=1, head_dim=24),
    "merged heads": replace(WIDE, heads=2, head_dim=96),
    "three heads, two layers": replace(WIDE, heads=3, head_dim=20, layers=2),
    "three convolutions": replace(WIDE, filters=(4, 8, 64), image_size=20),
    "grey and odd": replace(WIDE, channels=1, image_size=19),
    "no position, two layers": replace(WIDE, positional="none", image_size=15, layers=2),
    "no transformer": replace(WIDE, layers=0),
    "narrow": replace(WIDE, filters=(6, 16), mlp_units=(24, 16), head_dim=5),
    "odd widths": replace(WIDE, filters=(5, 67), mlp_units=(65, 67), heads=3, head_dim=7),
}
QUICK = ("merged heads", "three heads, two layers", "grey and odd")
each_architecture = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ARCHITECTURES],
)
# The formats of one file; tests/formats/test_ncnn_emitter.py runs that of two.
CASES = [(format, scheme) for format in ("tflite", "onnx") for scheme in BY_FORMAT[format]]
# How far below the quantization error the engine's own rounding error must stay, in dB. Integers
# accumulate exactly, but engines may round the output, and ranges computed at run time in float32,
# to the neighbouring integer. Where every step rounds, such a difference changes all that follows
# as much as quantization does: there, another test compares each step by itself. The error of 16
# bits is as small as that of LiteRT's lookup tables.
MARGINS = {"int8-dynamic": 6, "int8": 20, "int8-full": -3, "int16x8": -10, "int4-weight": 6}
# SQNR in dB of float schemes: float32 has 24 bits, 150 dB, and float16 weights 11 bits, 70 dB.
FLOATS = {"none": 100, "fp16": 50}


class Case(NamedTuple):
    """A plan, its calibration statistics, and images with their logits."""

    plan: Plan
    statistics: Statistics
    images: np.ndarray
    logits: np.ndarray


def model_of(spec: ModelSpec) -> Any:
    """A CCT with random weights whose logits differ from image to image."""
    keras.backend.clear_session()
    model = CCT(spec)
    random = np.random.default_rng(3)
    for weight in model.weights:
        if "gamma" in weight.path:
            value = random.uniform(0.5, 1.5, weight.shape)
        elif len(weight.shape) == 1:
            value = random.normal(0, 0.2, weight.shape)
        else:
            value = random.normal(0, 1.4 / np.sqrt(np.prod(weight.shape[:-1])), weight.shape)
        weight.assign(value)
    return model


@functools.cache
def case_of(name: str, format: str, scheme: str) -> Case:
    plan = lower_model(model_of(ARCHITECTURES[name])).plan
    plan = prepared(plan, ExportSpec(format, scheme))
    calibration = np.concatenate([photo_crops(plan.image_shape, 8, 1), random_images(plan, 2)])
    images = np.concatenate([photo_crops(plan.image_shape, 6, 2), random_images(plan, 2, 5)])
    return Case(plan, collect(plan, calibration, "crops"), images, evaluate(plan, images))


def quantized(name, format, scheme, **options):
    """Returns the quantized plan of an architecture, and the case."""
    # Schemes share one case, except for those whose plan or opset is another.
    case = case_of(name, format, scheme if scheme in ("int4-weight", "int8-full") else "none")
    calibration = CalibrationSpec(**options)
    return quantize(case.plan, BY_FORMAT[format][scheme], case.statistics, calibration), case


def emit(plan, format, scheme, io="float32"):
    return FORMATS[format].emit(plan, ExportSpec(format, scheme, io))


RUN = {"tflite": run_tflite, "onnx": run_onnx}


def sqnr_db(expected, actual):
    """SQNR of the logits minus their mean over the images, which would hide errors."""
    expected, actual = expected - expected.mean(0), actual - actual.mean(0)
    noise = np.sum((expected - actual) ** 2)
    return 10 * np.log10(np.sum(expected**2) / noise) if noise else np.inf


def test_the_architectures_have_steps_that_every_scheme_quantizes():
    for name in QUICK:
        plan = case_of(name, "tflite", "any").plan
        assert not all(is_small(plan, step) for step in of_kind(plan, steps.Dense))


@each_architecture
@pytest.mark.parametrize(("format", "scheme"), CASES)
def test_a_file_computes_what_the_simulation_predicts(name, format, scheme):
    plan, case = quantized(name, format, scheme)
    simulated = evaluate(plan, case.images)
    io = "uint8" if scheme == "int8-full" else "float32"
    logits = RUN[format](emit(plan, format, scheme, io), case.images)
    if scheme in FLOATS:
        assert sqnr_db(case.logits, simulated) > FLOATS[scheme]
        assert sqnr_db(simulated, logits) > FLOATS[scheme]
    else:
        quantization = sqnr_db(case.logits, simulated)
        assert 5 < quantization < 90
        assert sqnr_db(simulated, logits) > quantization + MARGINS[scheme]


def engine_tensors(content, images):
    """Returns the integers of each tensor, as computed by LiteRT's own kernels, no delegate."""
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    shift = 128 if image["dtype"] == np.int8 else 0
    tensors: dict[str, list] = {}
    for pixels in (images.astype(np.int16) - shift).astype(image["dtype"]):
        interpreter.set_tensor(image["index"], pixels[None])
        interpreter.invoke()
        for tensor in interpreter.get_tensor_details():
            try:
                value = interpreter.get_tensor(tensor["index"])
            except ValueError:  # scratch memory of a kernel
                continue
            tensors.setdefault(tensor["name"], []).append(value)
    return tensors


# How far LiteRT's lookup tables are off, in integers: with 16 bits the last 2 bits are uncertain,
# and the last 4 of 1/sqrt, which is steep. Other results differ by rounding alone.
TABLE_ERRORS = {("Gelu", 8): 2, ("Softmax", 8): 2, ("Rsqrt", 8): 2}
TABLE_ERRORS |= {("Gelu", 16): 4, ("Softmax", 16): 4, ("Rsqrt", 16): 16}


@each_architecture
@pytest.mark.parametrize(("scheme", "io"), [("int8-full", "int8"), ("int16x8", "float32")])
def test_every_step_computes_the_integers_that_the_simulation_predicts(name, scheme, io):
    quantized_plan, case = quantized(name, "tflite", scheme)
    tensors = engine_tensors(emit(quantized_plan, "tflite", scheme, io), case.images)
    quantized_plan = with_transposed_operands(quantized_plan, everywhere=False)
    plan, qparams = quantized_plan.plan, quantized_plan.qparams

    def reals(tensor):
        if tensor == plan.INPUT:
            return case.images.astype(np.float64)
        integers = np.concatenate(tensors[tensor]).reshape(len(case.images), *plan.shapes[tensor])
        return (integers.astype(np.float64) - qparams[tensor].zero_point) * qparams[tensor].scale

    for step in plan.steps:
        expected = quantized_plan.compute(step, *map(reals, step.inputs))
        params = qparams[step.output]
        error, bits = np.abs(reals(step.output) - expected) / float(params.scale), params.bits
        assert error.max() < TABLE_ERRORS.get((step.kind, bits), 1) + 0.5, step.output
        if scheme == "int8-full":
            # Few results are halfway between integers, except for the mean of 16 integers.
            assert np.mean(error > 0.5) < (0.5 if step.kind == "Mean" else 0.1), step.output


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(("format", "scheme"), CASES)
def test_raw_pixels_give_the_logits_of_float_pixels(name, format, scheme):
    plan, case = quantized(name, format, scheme)
    ios = ["float32", "uint8", "int8"] if format == "tflite" else ["float32", "uint8"]
    logits = [
        RUN[format](emit(plan, format, scheme, io), case.images)
        for io in ios
        if (scheme, io) != ("int8-full", "float32")
    ]
    for other in logits[1:]:
        np.testing.assert_array_equal(other, logits[0])


@each_architecture
@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_an_integer_only_file_has_no_float_tensor(name, io):
    plan, _ = quantized(name, "tflite", "int8-full")
    graph = read_tflite(emit(plan, "tflite", "int8-full", io))
    assert not [tensor for tensor in graph.tensors if tensor.type.startswith("FLOAT")]
    assert graph.image.type == graph.logits.type == io.upper()
    # Only unsigned pixels and logits are converted, at the ends.
    kinds = [operator.kind for operator in graph.operators]
    conversions = [kind for kind in kinds if kind in ("QUANTIZE", "DEQUANTIZE", "CAST")]
    assert conversions == ([] if io == "int8" else ["QUANTIZE", "QUANTIZE"])


def test_16_bit_integers_are_between_one_quantize_and_one_dequantize():
    plan, _ = quantized("three heads, two layers", "tflite", "int16x8")
    graph = read_tflite(emit(plan, "tflite", "int16x8"))
    first, *inner, last = graph.operators
    assert (first.kind, first.inputs, first.output.type) == ("QUANTIZE", [graph.image], "INT16")
    assert (last.kind, last.inputs[0].type, last.output) == ("DEQUANTIZE", "INT16", graph.logits)
    assert graph.image.type == graph.logits.type == "FLOAT32"
    assert not [t for o in inner for t in (*o.inputs, o.output) if t.type == "FLOAT32"]


@pytest.mark.parametrize("step", ["tokenizer/1/conv", "block_0/attention/scores", "logits"])
@pytest.mark.parametrize("scheme", ["int8", "int8-full", "int16x8"])
def test_a_step_kept_float_amid_integers_computes_what_the_simulation_predicts(scheme, step):
    plan, case = quantized("three heads, two layers", "tflite", scheme, floats=(step,))
    logits = run_tflite(emit(plan, "tflite", scheme), case.images)
    simulated = evaluate(plan, case.images)
    assert sqnr_db(simulated, logits) > sqnr_db(case.logits, simulated) + MARGINS[scheme]


@pytest.mark.parametrize("scheme", ["int8", "int8-full", "int16x8"])
def test_engines_accept_a_convolution_whose_outputs_are_all_zero(scheme):
    case = case_of("merged heads", "tflite", "any")
    first = case.plan.steps[0]
    dead = case.plan.replace({first.output: [replace(first, bias=np.full(8, -1e3))]})
    statistics = collect(dead, case.images, "crops")
    assert statistics.histograms[first.output].high < 1e-5
    plan = quantize(dead, BY_FORMAT["tflite"][scheme], statistics)
    logits = run_tflite(emit(plan, "tflite", scheme, "uint8"), case.images)
    # The logits no longer depend on the image.
    np.testing.assert_array_equal(logits, logits[:1].repeat(len(logits), 0))


@pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])
def test_integers_add_epsilon(scheme):
    # As large as the variance of almost constant tokens.
    plan = Plan((4, 1, 1), (steps.Rsqrt("logits", ("image",), 50.0),))
    images = np.array([[0, 1, 10, 255]], np.uint8).reshape(1, 4, 1, 1)
    statistics = collect(plan, images, "four pixels")
    quantized = quantize(plan, BY_FORMAT["tflite"][scheme], statistics)
    logits = run_tflite(emit(quantized, "tflite", scheme, "uint8"), images)
    tolerance = 16 * float(quantized.qparams["logits"].scale)
    np.testing.assert_allclose(logits, evaluate(quantized, images), rtol=0, atol=tolerance)


def test_quantizing_by_the_scheme_none_changes_no_byte():
    for format in RUN:
        plan = case_of("merged heads", format, "any").plan
        assert emit(QuantizedPlan(plan), format, "none") == emit(
            quantize(plan, BY_FORMAT[format]["none"], None), format, "none"
        )


def test_an_engine_clips_symmetric_tensors_to_the_range_of_the_simulation():
    plan = Plan(
        (4, 4, 1),
        (
            steps.Reshape("rows", ("image",), (4, 4)),
            steps.AddConstant("shifted", ("rows",), np.full(4, -128.0)),
            steps.MatMul("product", ("shifted", "shifted")),
            steps.Reshape("logits", ("product",), (16,)),
        ),
    )
    images = random_images(plan, 4)
    images[0, 0] = 0
    statistics = collect(plan, np.clip(images, 60, 180), "without black and white")
    quantized = quantize(plan, BY_FORMAT["tflite"]["int8-full"], statistics)
    params = quantized.qparams["shifted"]
    assert params.zero_point == 0
    integers = engine_tensors(emit(quantized, "tflite", "int8-full", "int8"), images)["shifted"]
    assert (np.min(integers), np.max(integers)) == (params.qmin, params.qmax)
