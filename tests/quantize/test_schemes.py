"""Quantization schemes, and which of them each format supports."""

import pytest

from cct_export.errors import InvalidRequest, UnsupportedScheme
from cct_export.quantize.schemes import (
    BY_FORMAT,
    SCHEMES,
    fast_schemes,
    scheme_of,
    with_activations,
)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_only_static_schemes_are_calibrated_and_only_integer_ones_quantize_weights(format):
    schemes = BY_FORMAT[format].values()
    static = {"int8", "int8-full", "int16x8", "int4-weight"}
    assert {scheme.name for scheme in schemes if scheme.calibrated} <= static
    assert {scheme.name for scheme in schemes if not scheme.quantizes_weights} == {"none", "fp16"}


def test_both_formats_have_every_scheme():
    assert list(BY_FORMAT["tflite"]) == sorted(BY_FORMAT["onnx"], key=list(SCHEMES).index)


def test_auto_tries_every_scheme_of_tflite_and_no_scheme_for_npus():
    assert fast_schemes("tflite") == list(SCHEMES)
    assert set(BY_FORMAT["onnx"]) - set(fast_schemes("onnx")) == {"int8-full", "int16x8"}


@pytest.mark.parametrize(
    ("scheme", "activations", "expected"),
    [
        ("int8-full", None, "int8-full"),
        ("int8-full", "uint8", "int8-full"),
        ("int8-full", "UINT16", "int16x8"),
        ("int16x8", "uint16", "int16x8"),
        ("int8", None, "int8"),
    ],
)
def test_the_type_of_activations_chooses_between_the_schemes_for_npus(
    scheme, activations, expected
):
    assert with_activations(scheme, activations) == expected


@pytest.mark.parametrize(
    ("scheme", "activations"),
    [("int8", "uint8"), ("none", "uint16"), ("auto", "uint8"), ("int16x8", "uint8")],
)
def test_other_schemes_have_no_type_of_activations(scheme, activations):
    with pytest.raises(UnsupportedScheme, match=f"{scheme} has no {activations} activations: "):
        with_activations(scheme, activations)


def test_an_unknown_type_of_activations_is_refused():
    with pytest.raises(InvalidRequest, match=r"int4.*uint8, uint16"):
        with_activations("int8-full", "int4")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_unknown_scheme_is_refused_with_the_names_of_all(format):
    with pytest.raises(UnsupportedScheme, match="none, fp16, int8-dynamic, int8, "):
        scheme_of("int4", format)


def test_every_scheme_has_a_parity_policy():
    from cct_export.evaluation.parity import POLICIES

    assert {name for schemes in BY_FORMAT.values() for name in schemes} == set(POLICIES)
