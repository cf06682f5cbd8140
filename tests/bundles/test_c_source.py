"""Names, strings and arrays of C++ made from what others wrote."""

import ast
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cct_export.bundles import c_source

KEYWORDS = """
    alignas alignof and and_eq asm atomic_cancel auto bitand bitor bool break case catch char
    char16_t char8_t class co_await co_return concept const const_cast constexpr continue
    decltype default delete do double dynamic_cast else enum explicit export extern false float
    for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr
    operator or or_eq private public register reinterpret_cast requires restrict return short
    signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t
    while xor xor_eq
""".split()  # noqa: SIM905
NAMES = st.text() | st.text("_ -.0aZé日") | st.sampled_from(KEYWORDS)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _numbers(text):
    return [float(word.rstrip("f")) for word in re.split(r"[\s,{}]+", text) if word]


@given(NAMES)
def test_any_name_becomes_an_identifier_that_cpp_does_not_use(name):
    word = c_source.identifier(name)
    # Names with two underscores belong to the compiler.
    assert re.fullmatch(r"model(_[a-z0-9]+)*", word)
    assert word not in KEYWORDS
    assert len(word) <= 48


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("cct-full-microcontroller", "model_cct_full_microcontroller"),
        ("model_1", "model_1"),
        ("class", "model_class"),
        ("2 Größen.tflite", "model_2_groen_tflite_2d324920"),
        ("日本", "model_cf2abf0c"),
        ("a" * 60, "model_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_11ee3912"),
        ("", "model"),
        ("__a__b__", "model_a_b"),
        ('x"; } int main() { //', "model_x_int_main"),
    ],
)
def test_names_keep_their_letters_and_digits(name, word):
    assert c_source.identifier(name) == word


@given(st.text(st.characters(codec="utf-8")) | st.text('a"\\?\n0/*é日'))
def test_a_string_literal_is_ascii_on_one_line_and_stands_for_the_same_bytes(text):
    literal = c_source.string(text)
    assert re.fullmatch(r'"(?:[ !#->@-\[\]-~]|\\[0-7]{3})*"', literal)
    assert ast.literal_eval(f"b{literal}") == text.encode()


@given(FLOATS)
def test_a_float_literal_is_the_same_float(value):
    literal = c_source.floating(value)
    assert re.fullmatch(r"-?\d\.\d+e[+-]\d+f", literal)
    assert np.float32(literal[:-1]) == np.float32(value)


@given(arrays.arrays(np.int8, arrays.array_shapes(max_dims=2, max_side=40)))
def test_an_array_has_its_values_in_order_in_short_lines(array):
    text = c_source.values(array)
    assert _numbers(text) == array.ravel().tolist()
    assert text.count("{") == text.count("}") == (len(array) if array.ndim == 2 else 0)
    assert max(map(len, text.splitlines())) <= 100


def test_booleans_and_floats_are_literals_of_their_own():
    assert c_source.values(np.array([True, False])).split() == ["true,", "false,"]
    assert _numbers(c_source.values(np.float32([[0.1, -2e-30]]))) == pytest.approx([0.1, -2e-30])
