"""Names that a user chooses from, and what is suggested for those that do not exist."""

import pytest

from cct_export import data
from cct_export.commands.options import DATA
from cct_export.data.named import NAMED
from cct_export.errors import InvalidRequest, UnsupportedScheme
from cct_export.files import check_file
from cct_export.graph.fold import PASSES
from cct_export.names import choose, closest, find
from cct_export.specs import FOLDS

WORDS = ("none", "fp16", "int8-dynamic", "int8", "mixed_float16")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("int8", "int8"), ("INT8", "int8"), ("Int8_Dynamic", "int8-dynamic"),
     ("mixed-float16", "mixed_float16")],
)  # fmt: skip
def test_a_name_is_found_in_any_spelling(word, meant):
    assert choose(word, WORDS, what="scheme") == meant


def test_a_name_that_does_not_exist_is_refused_with_the_closest_and_all():
    with pytest.raises(InvalidRequest) as refused:
        choose("int9", WORDS, what="scheme")
    assert str(refused.value) == (
        "no scheme is called 'int9': did you mean int8? "
        "(none, fp16, int8-dynamic, int8, mixed_float16)"
    )


def test_without_a_close_name_all_are_listed_and_the_error_is_that_of_the_caller():
    with pytest.raises(UnsupportedScheme, match="'ternary': choose from none, fp16, "):
        choose("ternary", WORDS, what="scheme", error=UnsupportedScheme)


@pytest.mark.parametrize(
    ("word", "close"),
    [("quant", "quantize"), ("qunatize", "quantize"), ("", None), ("zzz", None)],
)
def test_the_closest_name_begins_like_the_word_or_has_almost_its_letters(word, close):
    assert closest(word, ["data", "quiet", "quantize"]) == close


def test_nothing_is_found_for_a_word_that_is_none_of_the_names():
    assert find("int", WORDS) is None


def test_a_missing_file_is_refused_with_the_closest_in_its_folder(tmp_path):
    (tmp_path / "model.tflite").touch()
    with pytest.raises(InvalidRequest, match=r"no such file: .*/modle\.tflite: did you mean "):
        check_file(tmp_path / "modle.tflite")
    with pytest.raises(InvalidRequest, match=r"/zzz$"):
        check_file(tmp_path / "zzz")
    with pytest.raises(InvalidRequest, match="is a folder: name a file"):
        check_file(tmp_path)


def test_data_may_be_named_in_any_case_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data.find_data("CIFAR10") == "cifar10"
    (tmp_path / "CIFAR10").mkdir()
    assert data.find_data("CIFAR10") == "CIFAR10"
    with pytest.raises(InvalidRequest, match=r"'cifar11': did you mean cifar10\? \(cifar10, "):
        data.find_data("cifar11")


def test_the_names_that_requests_know_are_those_of_the_tables():
    assert tuple(PASSES) == FOLDS
    assert DATA.words == tuple(NAMED)


def test_the_shortest_continuation_is_suggested():
    assert closest("m.tflit", ["m.tflite.json", "m.tflite"]) == "m.tflite"
