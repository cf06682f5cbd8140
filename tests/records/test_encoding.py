"""Records as plain JSON types and text, and back."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.records.encoding import from_json, parse_json, to_json, to_text


@dataclass(frozen=True)
class Sample:
    path: Path
    values: tuple[float, ...]
    names: dict[str, str]


def test_paths_become_text_and_tuples_lists():
    assert to_json(Sample(Path("a/b"), (1.0, 2.5), {"x": "y"})) == {
        "path": "a/b",
        "values": [1.0, 2.5],
        "names": {"x": "y"},
    }


def test_numbers_that_json_does_not_have_become_null_at_any_depth():
    record = {"a": [math.inf, {"b": (math.nan, -math.inf, 1.0)}]}
    assert to_json(record) == {"a": [None, {"b": [None, None, 1.0]}]}
    json.loads(to_text(record))


def test_a_path_that_is_no_utf_8_can_be_written_and_read_again():
    path = Path(os.fsdecode(b"m\xff.tflite"))
    assert json.loads(to_text({"path": path}))["path"] == str(path)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists))
def test_what_is_plain_already_stays_what_it_is(value):
    assert to_json(value) == value


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", '{"a": 1e999}', "[" * 100_000, b"\xff", '"\\ud800"']
)
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_field_of_another_type_is_named():
    with pytest.raises(ValueError, match=r"\$\.count"):
        from_json({"count": "3"}, Counted)


@dataclass(frozen=True)
class Counted:
    count: int
