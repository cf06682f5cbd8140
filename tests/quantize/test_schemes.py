"""Schemes are data; an unknown one is refused before anything is loaded."""

import pytest

from cct_export.errors import UnsupportedScheme
from cct_export.quantize.schemes import BY_FORMAT, scheme


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_only_static_schemes_need_ranges_and_only_integers_are_rounded(format):
    schemes = BY_FORMAT[format].values()
    static = {"int8", "int8-full", "int16x8"}
    assert {scheme.name for scheme in schemes if scheme.calibrated} <= static
    assert {scheme.name for scheme in schemes if not scheme.rounds} == {"none", "fp16"}


def test_tflite_has_every_scheme_and_onnx_those_it_has_operators_for():
    only_tflite = ["int8-full", "int16x8"]
    assert [name for name in BY_FORMAT["tflite"] if name not in BY_FORMAT["onnx"]] == only_tflite
    assert set(BY_FORMAT["onnx"]) < set(BY_FORMAT["tflite"])
    for name in only_tflite:
        with pytest.raises(UnsupportedScheme, match=f"{name}'; tflite has it"):
            scheme(name, "onnx")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_unknown_scheme_is_refused_with_those_there_are(format):
    with pytest.raises(UnsupportedScheme, match="none, fp16, int8-dynamic, int8, "):
        scheme("int4", format)


def test_every_scheme_has_a_policy_for_parity():
    from cct_export.evaluation.parity import POLICIES

    assert {name for schemes in BY_FORMAT.values() for name in schemes} == set(POLICIES)
