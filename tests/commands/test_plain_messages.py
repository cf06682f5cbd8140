"""What files and devices say does not control the terminal that shows it."""

import logging

from cct_export.commands.options import _configure_logging
from cct_export.commands.plain import plain

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202ered"


def test_an_error_holds_no_control_characters(in_process):
    ended = in_process("export", "inspect", f"{HOSTILE}.tflite")
    assert ended.code == 1
    assert ended.err.rstrip("\n").isprintable()
    assert "red.tflite" in ended.err


def test_a_message_holds_none_but_the_ends_of_its_lines(capsys):
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


def test_text_in_any_script_stays_as_it_is():
    assert plain("Größe 猫 ± – \t|\n") == "Größe 猫 ± – \t|\n"
