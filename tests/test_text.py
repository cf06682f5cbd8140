"""Text of files and devices does not control the terminal that shows it; counts are English."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.commands.options import _configure_logging
from cct_export.text import one_line, plural, printable

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202ered"


def test_text_in_any_script_is_unchanged():
    assert printable("Größe 猫 ± –") == "Größe 猫 ± –"


@given(st.text(st.characters()))
def test_no_control_character_is_left(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert one_line(text).isprintable()


def test_only_the_characters_to_keep_are_kept():
    assert printable("a\tb\n\x1b", keep="\n\t") == "a\tb\n\ufffd"


@pytest.mark.parametrize("text", ["half \ud800 of a pair", HOSTILE, "\u2028"])
def test_what_is_shown_can_be_encoded(text):
    printable(text).encode("utf-8")


def test_one_line_has_single_spaces():
    assert one_line(" a \n\n b\tc ") == "a b c"
    assert one_line(3) == "3"


def test_an_error_has_no_control_characters(in_process):
    ended = in_process("export", "inspect", f"{HOSTILE}.tflite")
    assert ended.code == 2
    assert ended.err.rstrip("\n").isprintable()
    assert "red.tflite" in ended.err


def test_a_log_message_has_none_but_the_ends_of_its_lines(capsys):
    logger = logging.getLogger("cct_export")
    before = logger.handlers, logger.propagate, logger.level
    try:
        _configure_logging(quiet=False, verbose=False)
        logger.warning("a\n  b %s", HOSTILE)
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
    first, second = capsys.readouterr().err.rstrip("\n").split("\n")
    assert first == "a"
    assert second.isprintable()


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (1200, "1,200 runs")])
def test_a_noun_agrees_with_its_count(count, text):
    assert plural(count, "run") == text


def test_a_noun_may_have_another_plural():
    assert [plural(count, "class", "classes") for count in (1, 3)] == ["1 class", "3 classes"]
