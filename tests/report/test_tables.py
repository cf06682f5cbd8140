"""Tables on terminals of any width: no number is cut, and every line names its row."""

import io
import pickle
import re
import sys
from pathlib import Path

import every_table
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from screens import screen_of

from cct_export.report import tables, terminal
from cct_export.report.columns import NONE, Column
from cct_export.report.tables import print_table

WIDTHS = (20, 60, 80, 100, 132, 200)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A pickle of what ``every_table`` prints, and the same."""
    content = every_table.records()
    path = tmp_path_factory.mktemp("records") / "records.pickle"
    path.write_bytes(pickle.dumps(content))
    return path, content


@pytest.fixture(scope="module")
def on_terminals(records):
    """The lines of every table by width and name; None is the width of a pipe."""
    path, _ = records
    command = [sys.executable, every_table.__file__, str(path)]
    screens = {width: screen_of(width, command, ROOT).lines for width in WIDTHS}
    return {width: _by_table(lines) for width, lines in screens.items()}


def _by_table(lines):
    tables = {}
    for line in lines:
        if line.startswith(every_table.MARK):
            tables[line.removeprefix(every_table.MARK)] = current = []
        else:
            current.append(line)
    return tables


def _numbers(text):
    """The figures in a text, however it is laid out."""
    return sorted(re.findall(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?%?(?![\w.])", text))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(every_table.tables({"results": []})))
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(
    on_terminals, records, capsys, name, width
):
    every_table.tables(records[1])[name]()
    piped = capsys.readouterr().out
    shown = on_terminals[width][name]
    assert max(map(cell_len, shown)) <= width
    # What repeats in every block, and what is said once for all rows, may occur less often.
    missing = set(_numbers(piped)) - set(_numbers("\n".join(shown)))
    assert not missing


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_every_row_of_compared_results_has_the_name_of_its_file(on_terminals, records, width):
    """All names are short enough here not to be broken."""
    lines = on_terminals[width]["compared results"]
    headers = [index for index, line in enumerate(lines) if line.startswith("artifact")]
    names = [Path(result.artifact.path).name for result in records[1]["results"]]
    assert len(headers) == {60: 4, 80: 3, 100: 2, 132: 2, 200: 1}[width]
    for header in headers:
        rows = lines[header + 1 : header + 1 + len(names)]
        assert [row.split()[0] for row in rows] == names


def test_a_wide_table_says_once_what_is_the_same_in_all_rows(on_terminals):
    assert "threads 1, batch 1" in " ".join(on_terminals[60]["compared results"])
    assert not any("all rows" in line for line in on_terminals[200]["compared results"])


def test_doctor_has_one_line_for_each_delegate(on_terminals):
    for width in WIDTHS[1:]:
        lines = on_terminals[width]["delegates"]
        assert len(lines) == 2 + 1 + 2
        assert lines[-1].startswith("onnxruntime tensorrt  fails")


def _columns(rows, numeric):
    return [
        Column(
            f"c{index}",
            lambda row, index=index: row[index],
            (lambda row: 0.0) if number else None,
        )
        for index, number in enumerate(numeric)
    ]


def _printed(monkeypatch, width, columns, rows):
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "stdout", lambda: console)
    print_table(columns, rows)
    return screen.getvalue().splitlines()


cells = st.text("abc12,.-–×", min_size=1, max_size=14)


@given(
    width=st.integers(60, 200),
    numeric=st.lists(st.booleans(), min_size=1, max_size=24).map(lambda rest: [False, *rest]),
    data=st.data(),
)
def test_any_table_shows_every_number_whole_and_a_name_in_every_line(width, numeric, data):
    count = data.draw(st.integers(1, 4))
    rows = [
        (f"name{i}", *data.draw(st.lists(cells, min_size=len(numeric) - 1,
                                         max_size=len(numeric) - 1)))
        for i in range(count)
    ]  # fmt: skip
    assume(any(cell not in (NONE, "") for row in rows for cell in row[1:]))
    with pytest.MonkeyPatch.context() as patch:
        lines = _printed(patch, width, _columns(rows, numeric), rows)
    assert max(map(cell_len, lines)) <= width
    text = " ".join(lines)
    # A column without any value is left out.
    shown = [set(column) - {NONE, ""} for column in zip(*rows, strict=True)]
    assert all(
        cell in text for row in rows for cell, values in zip(row, shown, strict=True) if values
    )
    # The first column is never broken here: what begins with a space continues a row.
    table = lines[next(index for index, line in enumerate(lines) if line.startswith("c0")) :]
    assert all(re.match(r" |c0|name\d", line) for line in filter(str.strip, table))


def test_long_texts_are_broken_before_numbers_move_to_another_table(monkeypatch):
    rows = [("a" * 70, "1,234.567", "x " * 30)]
    lines = _printed(monkeypatch, 60, _columns(rows, [False, True, False]), rows)
    assert sum("c0" in line for line in lines) == 1
    assert any("1,234.567" in line for line in lines)
    assert sum(line.count("a") for line in lines) == 70


def test_a_column_without_values_is_left_out(monkeypatch):
    rows = [("first", NONE, "1"), ("second", NONE, "2")]
    lines = _printed(monkeypatch, 80, _columns(rows, [False, False, True]), rows)
    assert lines[0].split() == ["c0", "c2"]


def test_a_pipe_gets_one_line_for_each_row(capsys):
    rows = [("a" * 300, "1", "b " * 100)]
    print_table(_columns(rows, [False, True, False]), rows)
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[0] == "a" * 300


def test_a_text_may_be_elided_where_its_column_says_so(monkeypatch):
    columns = [Column("c0", lambda row: row[0]), Column("c1", lambda row: row[1], elided=True)]
    lines = _printed(monkeypatch, 60, columns, [("key", "word " * 40)])
    assert len(lines) == 2
    assert lines[1].rstrip().endswith("…")
    assert tables.MIN_TEXT_WIDTH < cell_len(lines[1].rstrip()) <= 60
