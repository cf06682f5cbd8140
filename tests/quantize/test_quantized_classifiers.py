"""Quantized files of classifiers that are no CCT compute what simulated quantization predicts."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from classifiers import CLASSIFIERS, activation, classifier, conv, dense
from emitted import partitions_of, read_tflite, run_tflite
from plans import of_kind, random_images
from test_quantized_files import (
    CASES,
    FLOATS,
    MARGINS,
    RUN,
    TABLE_ERRORS,
    Case,
    emit,
    engine_tensors,
    sqnr_db,
)

from cct_export.data.sampling import photo_crops
from cct_export.formats import FORMATS
from cct_export.graph import interpret, steps
from cct_export.graph.fold import fold
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.quantize.modes import quantization_modes
from cct_export.quantize.ptq import quantize
from cct_export.quantize.schemes import BY_FORMAT, SCHEMES
from cct_export.quantize.statistics import MAX_INPUTS, collect, input_rows
from cct_export.specs import ExportSpec

each_classifier = pytest.mark.parametrize("name", CLASSIFIERS)
# Plans of so few values that a single result shows which an engine rounds to the neighbouring
# integer; their quantization errors are smaller than those of a CCT.
MARGINS = {**MARGINS, "int8": 10}
# LiteRT interpolates with weights of 10 bits.
TABLE_ERRORS = {**TABLE_ERRORS, ("Activation", 8): 2, ("Activation", 16): 4, ("Resize", 16): 128}


@functools.cache
def case_of(name, format, scheme):
    plan = FORMATS[format].legalize(fold(CLASSIFIERS[name]), ExportSpec(format, scheme))
    images = np.concatenate([photo_crops(plan.image_shape, 16, 2), random_images(plan, 4, 5)])
    return Case(plan, collect(plan, images, "crops"), images, evaluate(plan, images))


def quantized(name, format, scheme, **options):
    """Returns the quantized plan of a classifier, and the case."""
    case = case_of(name, format, scheme)
    return quantize(case.plan, BY_FORMAT[format][scheme], case.statistics, **options), case


@each_classifier
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
        assert 10 < quantization < 90
        assert sqnr_db(simulated, logits) > quantization + MARGINS[scheme]


@each_classifier
@pytest.mark.parametrize(("scheme", "io"), [("int8-full", "int8"), ("int16x8", "float32")])
def test_every_step_computes_the_integers_that_the_simulation_predicts(name, scheme, io):
    quantized_plan, case = quantized(name, "tflite", scheme)
    plan, qparams = quantized_plan.plan, quantized_plan.qparams
    tensors = engine_tensors(emit(quantized_plan, "tflite", scheme, io), case.images)

    def reals(tensor):
        if tensor == plan.INPUT:
            return case.images.astype(np.float64)
        integers = np.concatenate(tensors[tensor]).reshape(len(case.images), *plan.shapes[tensor])
        return (integers.astype(np.float64) - qparams[tensor].zero_point) * qparams[tensor].scale

    assert quantized_plan.is_integer_only(qparams[plan.output].bits)
    for step in plan.steps:
        expected = quantized_plan.compute(step, *map(reals, step.inputs))
        params = qparams[step.output]
        error, bits = np.abs(reals(step.output) - expected) / float(params.scale), params.bits
        assert error.max() < TABLE_ERRORS.get((step.kind, bits), 1) + 0.5, step.output


@each_classifier
def test_an_integer_only_file_has_no_float_tensor(name):
    plan, _ = quantized(name, "tflite", "int8-full")
    graph = read_tflite(emit(plan, "tflite", "int8-full", "int8"))
    assert not [tensor for tensor in graph.tensors if tensor.type.startswith("FLOAT")]
    assert graph.image.type == graph.logits.type == "INT8"


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8", "int8-full"])
def test_probabilities_are_float_unless_all_is_integers(head, scheme):
    plan, _ = quantized(f"{head} at the end", "tflite", scheme)
    config = plan.config(plan.plan.steps[-1])
    if scheme == "int8-full":
        params = plan.qparams["logits"]
        assert (float(params.scale), params.zero_point) == (1 / 256, -128)
    else:
        assert (config.inputs, config.quantized_output) == ("float", False)


def test_tanh_has_the_parameters_that_engines_prescribe():
    for scheme, half in (("int8-full", 128), ("int16x8", 32768)):
        plan, _ = quantized("tanh", "tflite", scheme)
        params = plan.qparams["m"]
        assert (float(params.scale), params.zero_point) == (1 / half, 0)


@pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])
def test_pools_gathers_and_interpolation_keep_the_parameters_of_their_input(scheme):
    kinds = steps.AveragePool | steps.Gather | steps.Resize | steps.MaxPool
    for name in ("average pool, same", "global maximum", "grey of two channels", "smaller"):
        plan, _ = quantized(name, "tflite", scheme)
        (step,) = of_kind(plan.plan, kinds)
        assert plan.qparams[step.output] is plan.qparams[step.inputs[0]]


def test_between_integers_channels_move_as_integers_and_means_are_float():
    plan = classifier(
        steps.Gather("o", ("c",), (*range(31, -1, -1), 0)),
        steps.AveragePool("p", ("o",), (2, 2), (2, 2)),
        conv("m", "p", 1, 33, 32),
    )
    modes = quantization_modes(plan, SCHEMES["int8"])
    assert [modes[name] for name in "copm"] == ["static", "static", "float", "static"]


def test_the_delegate_runs_int8_files_as_one_partition():
    for name in CLASSIFIERS:
        plan, _ = quantized(name, "tflite", "int8")
        expected = (2, 1) if name == "grey of two channels" else (1, 0)
        assert partitions_of(emit(plan, "tflite", "int8")) == expected, name


def test_a_flattened_map_is_calibrated_without_second_moments():
    width = 24 * 24 * 8
    assert width > MAX_INPUTS
    plan = Plan(
        (26, 26, 3),
        (
            conv("c", "image", 3, 3, 8),
            steps.Reshape("f", ("c",), (width,)),
            dense("logits", "f", width, 5),
        ),
    )
    images = random_images(plan, 8)
    statistics = collect(plan, images, "random pixels")
    assert statistics.second_moments.keys() == {"c"}
    assert statistics.fits(plan, plan.shapes, {"c"})
    content = emit(quantize(plan, SCHEMES["int8"], statistics), "tflite", "int8")
    assert sqnr_db(evaluate(plan, images), run_tflite(content, images)) > 20


def test_the_rows_of_a_convolution_are_those_of_all_its_patches():
    step = conv("c", "image", 3, 2, 4, strides=(2, 1), pads=((1, 0), (0, 2)))
    x = np.random.default_rng(0).normal(size=(3, 90, 41, 2))
    rows = input_rows(step, x)
    kernel = step.kernel.reshape(-1, 4)
    sums = interpret.compute(replace(step, relu=False, bias=None), x).reshape(-1, 4)
    stride = -(-len(sums) // (1024 * 3))
    assert stride > 1
    np.testing.assert_allclose(rows @ kernel, sums[::stride], atol=1e-10)


def test_a_convolution_of_many_images_is_the_same_in_parts(monkeypatch):
    plan = classifier(activation("relu"))
    images = random_images(plan, 5)
    expected = evaluate(plan, images)
    monkeypatch.setattr(interpret, "_MAX_COPIED", 2 * 80 * 27)
    np.testing.assert_allclose(evaluate(plan, images), expected, rtol=1e-12)
