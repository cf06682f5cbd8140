"""Hostile text in every field of every record reaches no terminal, pipe or file as it is."""

import csv
import io
import logging
import pickle
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import every_table
import pytest
from bench_results import MACHINE, several
from hostile import HOSTILE, controls, controls_on_terminal, poisoned
from hypothesis import given
from hypothesis import strategies as st
from screens import screen_of

from cct_export.bench.regression import Verdict
from cct_export.commands.messages import report
from cct_export.errors import CCTExportError
from cct_export.records import Imported, Prediction, Pushed
from cct_export.records.encoding import to_text
from cct_export.records.model import SentFile
from cct_export.report import bench, export, predictions, rows, table_files
from cct_export.report.page import page
from cct_export.report.terminal import MessageHandler, say
from cct_export.streams import CleanStream

ROOT = Path(__file__).parents[2]
PREDICTION = Prediction(Path("cat.png"), (("cat", 0.9), ("=1+1", 0.1)))
IMPORTED = Imported(
    Path("m.keras"), "w.pth", "0" * 64, "of the paper", "cct_7", (32, 32, 3), 10, 99, 1000,
    ("a note",), 1e-6, 4, 4000, "0" * 64,
)  # fmt: skip
PUSHED = Pushed("owner/name", "main", True, (SentFile("model.keras", 1000, ""),), ("a note",))


@pytest.fixture(scope="module")
def records():
    """What tables are made of by name, with hostile text in every field."""
    return {name: poisoned(record) for name, record in every_table.records().items()}


@contextmanager
def messages():
    """Lets messages of every level reach standard error, as those of a verbose command do.

    No fixture: pytest would collect the messages too, and xdist cannot send lone surrogates.
    """
    logger = logging.getLogger("cct_export")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [MessageHandler()], False
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])


@pytest.mark.parametrize("name", list(every_table.tables({"results": []})))
def test_no_table_passes_control_characters_to_a_pipe(records, capfd, name):
    with messages():
        every_table.tables(records)[name]()
    shown = "".join(capfd.readouterr())
    assert "link" in shown
    assert not controls(shown.encode())


def test_no_table_passes_control_characters_to_a_terminal(records, tmp_path):
    path = tmp_path / "records.pickle"
    path.write_bytes(pickle.dumps(records))
    screen = screen_of(80, [sys.executable, every_table.__file__, str(path)], ROOT)
    assert screen.code == 0, screen.lines[-5:]
    assert screen.shown.count("link") > 100
    assert not controls_on_terminal(screen.shown.encode())


FAILED = replace(several()[4].parity, candidate="m.tflite")
OTHERS = {
    "parity": lambda: export.show_parity(poisoned(FAILED)),
    "import": lambda: export.show_import(poisoned(IMPORTED)),
    "dry run": lambda: export.show_push(poisoned(PUSHED)),
    "push": lambda: export.show_push(poisoned(replace(PUSHED, url="https://hub/commit"))),
    "verdict": lambda: bench.show_verdicts([poisoned(Verdict("m", "accuracy", "it fell"))]),
    "one image": lambda: predictions.show_prediction(poisoned(PREDICTION), 1),
    "several images": lambda: predictions.show_prediction(poisoned(PREDICTION), 2),
    "a line": lambda: say(HOSTILE),
    "an error": lambda: report(CCTExportError(HOSTILE)),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_no_line_of_a_result_holds_control_characters(capfd, name):
    with messages():
        OTHERS[name]()
    shown = "".join(capfd.readouterr())
    assert "link" in shown
    assert not controls(shown.encode())


def test_what_a_message_quotes_is_on_one_line_and_its_own_lines_stay(capfd):
    with messages():
        export.show_parity(poisoned(FAILED))
    first, *reasons = capfd.readouterr().err.splitlines()
    assert "parity FAILED" in first
    assert len(reasons) == len(FAILED.failures)
    assert all(reason.startswith("  ") for reason in reasons)


def written(results):
    """Returns by kind the files with poisoned results."""
    records = poisoned(results)
    return {
        "html": page(poisoned(MACHINE), records),
        "markdown": rows.markdown(records),
        "csv": rows.csv(records),
        "json": to_text(records),
    }


@pytest.mark.parametrize("kind", ["html", "markdown", "json"])
def test_no_file_with_results_holds_control_characters(kind):
    content = written(several())[kind]
    assert "link" in content
    assert not controls(content.encode())
    assert "<b>" not in content or kind == "json"


def test_csv_is_data_which_keeps_what_a_file_can_hold():
    results = several()[:1]
    text = written(results)["csv"].encode().decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["path"] == results[0].artifact.path + HOSTILE.replace("\udce9", "?").replace(
        "\r\n", "\n"
    )


def test_a_table_in_a_file_has_a_line_for_each_row():
    files = written(several())
    assert len(files["markdown"].splitlines()) == 2 + len(several())
    assert len(list(csv.DictReader(io.StringIO(files["csv"], newline="")))) == len(several())


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "＝", "＠"])
def test_a_spreadsheet_takes_no_text_for_a_formula(beginning):
    label = f"{beginning}1+cmd|' /C calc'!A0"
    prediction = Prediction(Path("cat.png"), ((label, 0.9),))
    text = table_files.csv(predictions.PredictionRow, predictions.prediction_rows([prediction]))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["label"] == "'" + label.replace("\r", "\n")


class _Bytes(io.TextIOWrapper):
    """A stream in some encoding, and the bytes that it got."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding, newline="")


@given(st.text(st.characters()), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_a_clean_stream_takes_any_text_in_any_encoding(text, encoding):
    stream = _Bytes(encoding)
    clean = CleanStream(stream)
    assert clean.write(text) == len(text)
    clean.flush()
    got = stream.buffer.getvalue().decode(encoding)
    assert got.replace("\n", "").isprintable()
    assert got.count("\n") == text.count("\n")
