"""Schemes are data; an unknown one is refused before anything is loaded."""

import pytest

from cct_export.errors import UnsupportedScheme
from cct_export.quantize.schemes import BY_FORMAT, scheme


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_each_format_has_the_four_schemes_and_only_int8_needs_images(format):
    assert list(BY_FORMAT[format]) == ["none", "fp16", "int8-dynamic", "int8"]
    assert [name for name in BY_FORMAT[format] if scheme(name, format).calibrated] == ["int8"]


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_an_unknown_scheme_is_refused_with_those_there_are(format):
    with pytest.raises(UnsupportedScheme, match="none, fp16, int8-dynamic, int8"):
        scheme("int4", format)


def test_every_scheme_has_a_policy_for_parity():
    from cct_export.parity import POLICIES

    assert {name for schemes in BY_FORMAT.values() for name in schemes} == set(POLICIES)
