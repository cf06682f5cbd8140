"""Files of quantized plans compute in their engines what the simulation of the plan says."""

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils
from cct_export.export.conversion import plan_of
from plans import random_images

from cct_export.data.sampling import photo_crops
from cct_export.formats import FORMATS
from cct_export.graph import steps
from cct_export.graph.interpret import interpret
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan, tensors
from cct_export.model.cct import CCT
from cct_export.quantize.ptq import is_small, quantize
from cct_export.quantize.schemes import BY_FORMAT
from cct_export.quantize.statistics import Statistics, gather
from cct_export.specs import ExportSpec, ModelSpec

# Wide enough for dense layers that schemes do quantize.
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
CASES = [(format, scheme) for format, schemes in BY_FORMAT.items() for scheme in schemes]
# How far below the noise of quantization that of the engine's own rounding must stay, in dB. Sums
# of integers are exact, but engines may round them, and what they find at run time in float32, to
# the place beside ours. Where every step rounds, one such place changes the rounding of all that
# follows, as much as quantization does: there, each step is compared by itself below. 16 bits are
# as fine as LiteRT's tables of curves.
MARGINS = {"int8-dynamic": 6, "int8": 20, "int8-full": -3, "int16x8": -10, "int4-weight": 6}
# float32 has 24 bits, 150 dB, and float16 weights 11, 70 dB: enough of that is left at the end.
FLOATS = {"none": 100, "fp16": 50}


class Drawn(NamedTuple):
    plan: Plan
    statistics: Statistics
    images: np.ndarray
    wanted: np.ndarray


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
def drawn(name: str, format: str, scheme: str) -> Drawn:
    """A plan in the steps of a format, what its tensors hold, and images with their logits."""
    spec = ExportSpec(format, "int4-weight" if scheme == "int4-weight" else "none")
    plan = plan_of(model_of(ARCHITECTURES[name]), spec)
    seen = np.concatenate([photo_crops(plan.image_shape, 8, 1), random_images(plan, 2)])
    images = np.concatenate([photo_crops(plan.image_shape, 6, 2), random_images(plan, 2, 5)])
    return Drawn(plan, gather(plan, seen, "crops"), images, interpret(plan, images))


def quantized(name, format, scheme, **fields):
    """The plan of an architecture under a scheme, and what it was made of."""
    asked = BY_FORMAT[format][scheme]
    # Schemes share one drawing, except for the one that needs an operator set of its own.
    source = drawn(name, format, scheme if scheme == "int4-weight" else "any")
    return quantize(source.plan, asked, source.statistics, **fields), source


def emit(plan, format, scheme, io="float32"):
    return FORMATS[format].emit(plan, ExportSpec(format, scheme, io))


def run_tflite(content, images):
    """Returns logits as reals; the image is given in the type that the file takes."""
    interpreter = Interpreter(model_content=content)
    runner = interpreter.get_signature_runner("serving_default")
    (image,) = runner.get_input_details().values()
    (logits,) = runner.get_output_details().values()
    shift = 128 if image["dtype"] == np.int8 else 0
    given = (images.astype(np.int16) - shift).astype(image["dtype"])
    made = np.concatenate([runner(image=one[None])["logits"] for one in given])
    if logits["dtype"] == np.float32:
        return made.astype(np.float64)
    scale, zero_point = logits["quantization"]
    return (made.astype(np.float64) - zero_point) * scale


def run_onnx(content, images):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    type = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[session.get_inputs()[0].type]
    parts = [session.run(["logits"], {"image": one[None].astype(type)})[0] for one in images]
    return np.concatenate(parts).astype(np.float64)


RUN = {"tflite": run_tflite, "onnx": run_onnx}


def sqnr_db(wanted, found):
    """Signal to noise ratio of what differs between images; what they share hides errors."""
    wanted, found = wanted - wanted.mean(0), found - found.mean(0)
    noise = np.sum((wanted - found) ** 2)
    return 10 * np.log10(np.sum(wanted**2) / noise) if noise else np.inf


def type_names(content):
    """Returns the operators and the types of all tensors of a flatbuffer, and those of its ends."""
    names = {v: k for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
    kinds = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    (graph,) = model.subgraphs
    tensors = [names[tensor.type] for tensor in graph.tensors]
    operators = [
        (
            kinds[model.operatorCodes[o.opcodeIndex].builtinCode],
            [tensors[i] for i in o.inputs if i >= 0],
        )
        for o in graph.operators
    ]
    return operators, tensors, (tensors[graph.inputs[0]], tensors[graph.outputs[0]])


def test_the_architectures_have_steps_that_every_scheme_quantizes():
    for name in ARCHITECTURES:
        plan = drawn(name, "tflite", "any").plan
        layers = [step for step in plan.steps if isinstance(step, steps.Dense)]
        assert not all(is_small(plan, step) for step in layers)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("format", "scheme"), CASES)
def test_a_file_computes_what_the_simulation_says(name, format, scheme):
    plan, source = quantized(name, format, scheme)
    simulated = tensors(plan, source.images)
    io = "uint8" if scheme == "int8-full" else "float32"
    found = RUN[format](emit(plan, format, scheme, io), source.images)
    if scheme in FLOATS:
        assert sqnr_db(source.wanted, simulated) > FLOATS[scheme]
        assert sqnr_db(simulated, found) > FLOATS[scheme]
    else:
        noise = sqnr_db(source.wanted, simulated)
        assert 5 < noise < 90
        assert sqnr_db(simulated, found) > noise + MARGINS[scheme]


def held_by_engine(content, images):
    """Returns what LiteRT's own kernels, no delegate, hold in each tensor, as integers."""
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    shift = 128 if image["dtype"] == np.int8 else 0
    held: dict[str, list] = {}
    for one in images:
        pixels = (one[None].astype(np.int16) - shift).astype(image["dtype"])
        interpreter.set_tensor(image["index"], pixels)
        interpreter.invoke()
        for tensor in interpreter.get_tensor_details():
            try:
                value = interpreter.get_tensor(tensor["index"])
            except ValueError:  # scratch memory of a kernel
                continue
            held.setdefault(tensor["name"], []).append(value)
    return held


# How many places off LiteRT's curves are, which it takes from tables: of 16 bits the last 2 are
# open, and of 1/sqrt, which falls steeply, the last 4. Arithmetic is rounded once, in another way
# than ours.
OFF = {("Gelu", 8): 2, ("Softmax", 8): 2, ("Rsqrt", 8): 2}
OFF |= {("Gelu", 16): 4, ("Softmax", 16): 4, ("Rsqrt", 16): 16}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("scheme", "io"), [("int8-full", "int8"), ("int16x8", "float32")])
def test_every_step_makes_of_integers_what_the_simulation_makes_of_them(name, scheme, io):
    quantized_plan, source = quantized(name, "tflite", scheme)
    plan, qparams = quantized_plan.plan, quantized_plan.qparams
    held = held_by_engine(emit(quantized_plan, "tflite", scheme, io), source.images)

    def reals(tensor):
        if tensor == plan.INPUT:
            return source.images.astype(np.float64)
        integers = np.concatenate(held[tensor]).reshape(len(source.images), *plan.shapes[tensor])
        return (integers.astype(np.float64) - qparams[tensor].zero_point) * qparams[tensor].scale

    for step in plan.steps:
        wanted = quantized_plan.compute(step, *map(reals, step.inputs))
        found = reals(step.output)
        steps_off = np.abs(found - wanted) / float(qparams[step.output].scale)
        bits = qparams[step.output].bits
        assert steps_off.max() < OFF.get((step.kind, bits), 1) + 0.5, step.output
        if scheme == "int8-full":
            # Few numbers are near the middle of two places, but for the mean of 16 integers.
            assert np.mean(steps_off > 0.5) < (0.5 if step.kind == "Mean" else 0.1), step.output


@pytest.mark.parametrize("name", ["merged heads", "odd widths"])
def test_integer_weights_and_float_activations_are_computed_in_float(name):
    plan, source = quantized(name, "onnx", "int4-weight")
    found = run_onnx(emit(plan, "onnx", "int4-weight"), source.images)
    assert sqnr_db(tensors(plan, source.images), found) > FLOATS["none"]


@pytest.mark.parametrize("name", ["merged heads", "three heads, two layers", "grey and odd"])
@pytest.mark.parametrize(("format", "scheme"), CASES)
def test_raw_pixels_give_the_logits_of_float_pixels(name, format, scheme):
    plan, source = quantized(name, format, scheme)
    ios = ["float32", "uint8", "int8"] if format == "tflite" else ["float32", "uint8"]
    found = [
        RUN[format](emit(plan, format, scheme, io), source.images)
        for io in ios
        if (scheme, io) != ("int8-full", "float32")
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_integers_only_means_no_float_anywhere(name, io):
    plan, _ = quantized(name, "tflite", "int8-full")
    operators, types, ends = type_names(emit(plan, "tflite", "int8-full", io))
    assert not [type for type in types if type.startswith("FLOAT")]
    assert ends == (io.upper(), io.upper())
    # Only pixels and logits of the other signedness are converted, at the ends.
    converted = [kind for kind, _ in operators if kind in ("QUANTIZE", "DEQUANTIZE", "CAST")]
    assert converted == ([] if io == "int8" else ["QUANTIZE", "QUANTIZE"])


def test_16_bits_are_between_one_quantize_and_one_dequantize():
    plan, _ = quantized("three heads, two layers", "tflite", "int16x8")
    operators, types, ends = type_names(emit(plan, "tflite", "int16x8"))
    assert ends == ("FLOAT32", "FLOAT32")
    assert operators[0] == ("QUANTIZE", ["FLOAT32"])
    assert operators[-1] == ("DEQUANTIZE", ["INT16"])
    assert types.count("FLOAT32") == 2
    assert all("FLOAT32" not in inputs for _, inputs in operators[1:])


@pytest.mark.parametrize("floats", ["tokenizer/1/conv", "block_0/attention/scores", "logits"])
@pytest.mark.parametrize("scheme", ["int8", "int8-full", "int16x8"])
def test_a_step_kept_float_amid_integers_computes_what_the_simulation_says(scheme, floats):
    plan, source = quantized("three heads, two layers", "tflite", scheme, floats=[floats])
    found = run_tflite(emit(plan, "tflite", scheme), source.images)
    simulated = tensors(plan, source.images)
    noise = sqnr_db(source.wanted, simulated)
    assert sqnr_db(simulated, found) > noise + MARGINS[scheme]


@pytest.mark.parametrize("scheme", ["int8", "int8-full", "int16x8"])
def test_a_dead_convolution_is_no_reason_for_an_engine_to_refuse_a_file(scheme):
    source = drawn("narrow", "tflite", "any")
    first = source.plan.steps[0]
    dead = source.plan.replace({first.output: [replace(first, bias=np.full(6, -1e3))]})
    statistics = gather(dead, source.images, "crops")
    assert statistics.distributions[first.output].high < 1e-5
    plan = quantize(dead, BY_FORMAT["tflite"][scheme], statistics)
    found = run_tflite(emit(plan, "tflite", scheme, "uint8"), source.images)
    # Nothing of the image is left: every image has the logits of every other.
    np.testing.assert_array_equal(found, found[:1].repeat(len(found), 0))


@pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])
def test_epsilon_counts_in_integers_too(scheme):
    # As much as the variance of nearly constant tokens does.
    plan = Plan((4, 1, 1), (steps.Rsqrt("logits", ("image",), 50.0),))
    images = np.array([[0, 1, 10, 255]], np.uint8).reshape(1, 4, 1, 1)
    statistics = gather(plan, images, "four pixels")
    made = quantize(plan, BY_FORMAT["tflite"][scheme], statistics)
    found = run_tflite(emit(made, "tflite", scheme, "uint8"), images)
    grid = made.qparams["logits"]
    # Far more than LiteRT's table of the curve is off.
    np.testing.assert_allclose(found, tensors(made, images), rtol=0, atol=16 * float(grid.scale))


def test_a_plan_of_floats_and_its_empty_quantization_give_the_same_bytes():
    plan = drawn("one head", "tflite", "any").plan
    for format in RUN:
        plan = drawn("one head", format, "any").plan
        assert emit(QuantizedPlan(plan), format, "none") == emit(
            quantize(plan, BY_FORMAT[format]["none"], None), format, "none"
        )


def test_an_engine_clips_to_the_ends_of_a_symmetric_grid_that_the_simulation_clips_to():
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
    statistics = gather(plan, np.clip(images, 60, 180), "without black and white")
    made = quantize(plan, BY_FORMAT["tflite"]["int8-full"], statistics)
    assert made.qparams["shifted"].zero_point == 0
    held = held_by_engine(emit(made, "tflite", "int8-full", "int8"), images)["shifted"]
    grid = made.qparams["shifted"]
    assert (np.min(held), np.max(held)) == (grid.low, grid.high)
