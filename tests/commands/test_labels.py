"""What ``--labels`` takes."""

import json

import pytest

from cct_export.commands.labels import read_labels
from cct_export.errors import InvalidData, InvalidRequest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "cat\n\n  sea lion \r\nhen"),
        ("names.txt", "\ufeffcat\nsea lion\nhen\n"),
        ("names.json", json.dumps(["cat", "sea lion", "hen"])),
        ("names", '\n ["cat", " sea lion", "hen"]'),
    ],
)
def test_a_file_has_a_name_in_each_line_or_a_json_list(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(str(tmp_path / name)) == ("cat", "sea lion", "hen")


def test_names_may_be_given_in_place_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_labels("cat, sea lion,hen") == ("cat", "sea lion", "hen")
    (tmp_path / "a,b").write_text("x\ny\n")
    assert read_labels("a,b") == ("x", "y")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "write the name of a class in each line"),
        ("[]", "write the name of a class in each line"),
        ("[1, 2]", "its JSON is no list of names"),
        ('["a"', "holds no labels"),
        ("[" * 100_000, "holds no labels"),
    ],
    ids=["empty", "empty list", "numbers", "cut off", "deep"],
)
def test_a_file_without_names_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "names.txt"
    path.write_text(content)
    with pytest.raises(InvalidData, match=reason) as caught:
        read_labels(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_dictionary_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no such file"):
        read_labels(str(tmp_path / "gone.txt"))
    (tmp_path / "names.json").write_text('{"0": "cat"}')
    with pytest.raises(InvalidData, match="no list of names"):
        read_labels(str(tmp_path / "names.json"))
