"""Numbers and their bounds: NaN meets none, and no spec takes a number that is not finite."""

import dataclasses
import math
from types import NoneType
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest

import cct_export
from cct_export import specs
from cct_export.bench.regression import Limits
from cct_export.bounds import Range, exceeds, falls_short, is_finite, shown
from cct_export.errors import InvalidRequest
from cct_export.specs.train import hyperparameters

NO_NUMBERS = [math.nan, math.inf, -math.inf, 10**400, -(10**400), np.float32("nan"), "1", True]
SPECS = [
    specs.Timing(),
    specs.BenchSpec("litert"),
    specs.BenchPasses(),
    specs.ExportSpec("onnx"),
    specs.QuantScheme("x", "y"),
    specs.CalibrationSpec(),
    specs.Constraints(),
    specs.ExportRequest(specs.ExportSpec("onnx"), "m.onnx"),
    specs.ModelSpec(),
    specs.ImportSpec(),
    specs.TrainSpec("digits"),
    specs.Normalization(),
    Limits(),
]


def numeric_fields(kind):
    """Yields the fields of a dataclass that are whole or real numbers, or may be."""
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is not tuple and {int, float} & {hint, *get_args(hint)}:
            yield name


FIELDS = [(spec, name) for spec in SPECS for name in numeric_fields(type(spec))]


def test_nan_meets_no_bound():
    assert (exceeds(2, 1), exceeds(1, 1), exceeds(0.5, 1)) == (True, False, False)
    assert (falls_short(0.5, 1), falls_short(1, 1), falls_short(2, 1)) == (True, False, False)
    for compare in (exceeds, falls_short):
        assert compare(math.nan, 1)
        assert compare(1, math.nan)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_finite_number_is_in_no_range(value):
    assert not is_finite(value)
    for bounds in (Range(), Range(0), Range(maximum=1), Range(above=0, below=1)):
        assert bounds.problem(value)


@pytest.mark.parametrize(
    ("bounds", "value", "problem"),
    [
        (Range(0, 1), 0, ""),
        (Range(0, 1), np.float32(1), ""),
        (Range(1, 4, whole=True), np.int64(4), ""),
        (Range(0, 1), 1.5, "must be at most 1, not 1.5"),
        (Range(1, whole=True), 0, "must be at least 1, not 0"),
        (Range(above=0), 0, "must be above 0, not 0"),
        (Range(below=1), 1, "must be below 1, not 1"),
        (Range(whole=True), 2.0, "must be a whole number, not 2.0"),
        (Range(), "2", "must be a number, not '2'"),
        (Range(), None, "must be a number, not None"),
        (Range(0, 1), 10**400, "must be at most 1, not a number of 401 digits"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_bound(bounds, value, problem):
    assert bounds.problem(value) == problem


def test_a_value_of_any_length_is_quoted_in_a_few_words():
    assert shown(10**30) == str(10**30)
    for value in (10**5000, -(10**5000), "9" * 5000, [0] * 5000):
        assert len(shown(value)) < 80


def test_every_spec_is_among_those_tested():
    known = {type(spec) for spec in SPECS}
    for kind in vars(specs).values():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and list(numeric_fields(kind)):
            assert kind in known


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(("spec", "name"), FIELDS)
def test_no_numeric_field_of_a_spec_takes_what_is_no_finite_number(spec, name, value):
    with pytest.raises(ValueError, match=name) as raised:
        dataclasses.replace(spec, **{name: value})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(("spec", "name"), FIELDS)
def test_none_is_taken_only_where_the_annotation_allows_it(spec, name):
    if NoneType in get_args(get_type_hints(type(spec))[name]):
        dataclasses.replace(spec, **{name: None})
    else:
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(spec, **{name: None})


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_no_list_of_a_model_takes_what_is_no_finite_number(value):
    for name, others in (("mean", (0.5, 0.5)), ("std", (0.5, 0.5)), ("filters", (128,)),
                         ("mlp_units", (128,))):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            specs.ModelSpec(**{name: (value, *others)})


CALLS = {
    "check max_drop": lambda value: cct_export.check("gone.json", max_drop=value),
    "check max_regression": lambda value: cct_export.check("gone.json", max_regression=value),
    "compare threads": lambda value: cct_export.compare(["gone.json"], threads=value),
    "compare batch": lambda value: cct_export.compare(["gone.json"], batch=value),
    "export_tflite min_sqnr": lambda value: cct_export.export_tflite("gone", min_sqnr=value),
    "export_onnx max_drop": lambda value: cct_export.export_onnx("gone", max_drop=value),
    "export_onnx opset": lambda value: cct_export.export_onnx("gone", opset=value),
    "export_files parity_samples": lambda value: cct_export.export_files(
        "gone", parity_samples=value
    ),
    "export_tflite calibration_samples": lambda value: cct_export.export_tflite(
        "gone", calibration_samples=value
    ),
    "quantize_report samples": lambda value: cct_export.quantize_report("gone", samples=value),
    "predict top": lambda value: cct_export.predict(images="gone.png", top=value),
    "import_model classes": lambda value: cct_export.import_model("gone.pth", classes=value),
    **{
        f"benchmark {name}": lambda value, name=name: cct_export.benchmark(
            "tflite", sources="gone.tflite", **{name: value}
        )
        for name in ("sustained_s", "min_runs", "min_s", "warmup_s", "repeats", "agreement")
    },
    **{
        f"benchmark {name}": lambda value, name=name: cct_export.benchmark(
            "tflite", sources="gone.tflite", **{name: (1, value)}
        )
        for name in ("threads", "batches")
    },
    **{
        f"time_together {name}": lambda value, name=name: cct_export.time_together(
            ["gone.tflite"], **{name: value}
        )
        for name in ("threads", "rounds", "burst", "warmup")
    },
    **{
        f"recipe {each.name}": lambda value, name=each.name: cct_export.recipe(**{name: value})
        for each in hyperparameters()
        if type(each.default) in (int, float)
    },
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, 10**31, -1e31, True])
@pytest.mark.parametrize("call", CALLS)
def test_the_python_api_refuses_a_number_that_cannot_be_before_anything_else(call, value):
    name = call.partition(" ")[2]
    with pytest.raises(InvalidRequest) as raised:
        CALLS[call](value)
    message = str(raised.value)
    assert name.rstrip("s") in message or name.removesuffix("es") in message
    assert len(message) < 200
    assert "gone" not in message
