"""Quantization schemes, and which of them each format supports."""

import pytest

from cct_export.errors import UnsupportedScheme
from cct_export.quantize.schemes import BY_FORMAT, scheme_of


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_only_static_schemes_are_calibrated_and_only_integer_ones_quantize_weights(format):
    schemes = BY_FORMAT[format].values()
    static = {"int8", "int8-full", "int16x8"}
    assert {scheme.name for scheme in schemes if scheme.calibrated} <= static
    assert {scheme.name for scheme in schemes if not scheme.quantizes_weights} == {"none", "fp16"}


def test_tflite_has_every_scheme_and_onnx_all_but_the_integer_only_ones():
    only_tflite = ["int8-full", "int16x8"]
    assert [name for name in BY_FORMAT["tflite"] if name not in BY_FORMAT["onnx"]] == only_tflite
    assert set(BY_FORMAT["onnx"]) < set(BY_FORMAT["tflite"])
    for name in only_tflite:
        with pytest.raises(UnsupportedScheme, match=f"{name}; tflite has it"):
            scheme_of(name, "onnx")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_unknown_scheme_is_refused_with_the_names_of_all(format):
    with pytest.raises(UnsupportedScheme, match="none, fp16, int8-dynamic, int8, "):
        scheme_of("int4", format)


def test_every_scheme_has_a_parity_policy():
    from cct_export.evaluation.parity import POLICIES

    assert {name for schemes in BY_FORMAT.values() for name in schemes} == set(POLICIES)
