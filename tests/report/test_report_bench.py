"""Profiles of operators as tables and bars."""

from dataclasses import replace

import pytest

from cct_export.errors import OutputError
from cct_export.records import OperatorProfile, OperatorTime
from cct_export.report import bench, plots

NOTE = "Figures [with] care."


def profile_of(*rows, derived=False):
    times = tuple(OperatorTime(name, kind, ms, "xnnpack") for name, kind, ms in rows)
    return OperatorProfile(times, runs=7, derived=derived, note=NOTE)


PROFILE = profile_of(
    ("early", "ADD", 0.25), ("conv", "CONV_2D", 1.0), ("back", "ADD", -0.05), ("late", "ADD", 0.8)
)


def lines(capsys, profile, title="model.tflite"):
    bench.show_operators(profile, title)
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_rows_are_the_slowest_first_with_their_share_of_the_sum(capsys):
    printed = lines(capsys, PROFILE)
    assert printed[0] == "model.tflite"
    assert [line.split() for line in printed[2:6]] == [
        ["conv", "CONV_2D", "1.0000", "50.0%", "xnnpack"],
        ["late", "ADD", "0.8000", "40.0%", "xnnpack"],
        ["early", "ADD", "0.2500", "12.5%", "xnnpack"],
        ["back", "ADD", "-0.0500", "-2.5%", "xnnpack", "within", "noise"],
    ]


def test_kinds_are_summed_and_the_note_is_printed_as_it_is(capsys):
    printed = lines(capsys, PROFILE)
    start = printed.index("by kind")
    assert [line.split() for line in printed[start + 2 : start + 4]] == [
        ["ADD", "3", "1.0000", "50.0%"],
        ["CONV_2D", "1", "1.0000", "50.0%"],
    ]
    assert printed[-2:] == ["2.0000 ms in 4 operators, medians of 7 runs", NOTE]


def test_derived_times_are_marked(capsys):
    printed = lines(capsys, profile_of(("a", "ADD", 1.0), derived=True))
    assert "1.0000 ms in 1 operator, derived, medians of 7 runs" in printed


def test_no_share_of_nothing(capsys):
    assert lines(capsys, profile_of())[-2].startswith("0.0000 ms in 0 operators")
    printed = lines(capsys, profile_of(("a", "ADD", 0.0)))
    assert printed[2].split() == ["a", "ADD", "0.0000", "xnnpack"]


def test_only_the_slowest_operators_have_a_row_and_the_others_a_line(capsys):
    rows = [(f"slow_{index}", "ADD", 1.0 + index) for index in range(bench.MOST_ROWS)]
    noisy = replace(OperatorTime("noisy", "MUL", 0.01, "xnnpack"), noise_ms=0.02)
    profile = profile_of(*rows, ("fast", "MUL", 0.03))
    printed = lines(capsys, replace(profile, operators=(*profile.operators, noisy)))
    names = [line.split()[0] for line in printed[2 : 2 + bench.MOST_ROWS]]
    assert names == [f"slow_{index}" for index in reversed(range(bench.MOST_ROWS))]
    assert printed[2 + bench.MOST_ROWS] == (
        "and 2 others: 0.0400 ms, 0.0%; --json has them all; 1 is within noise"
    )


def test_names_with_markup_and_control_characters_are_literal(capsys):
    printed = "\n".join(lines(capsys, profile_of(("[red]x\x1b[2J", "ADD", 1.0)), "[bold]t"))
    assert "[red]x" in printed
    assert "[bold]t" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("count", [0, 1, 100])
def test_the_plot_is_a_picture_of_any_number_of_operators(tmp_path, count):
    path = tmp_path / "new" / "bars.png"
    rows = [("same $name$ $\\frac", "ADD", 0.1 * index - 1) for index in range(count)]
    bench.plot_operators(profile_of(*rows), path, "$m_")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["bars.png"]


def test_the_plot_has_a_bar_per_operator_though_names_repeat(tmp_path, monkeypatch):
    arguments = {}
    monkeypatch.setattr(
        plots, "bars", lambda path, labels, lengths, *texts: arguments.update(
            labels=labels, lengths=lengths, texts=texts
        )
    )  # fmt: skip
    bench.plot_operators(
        profile_of(*[("a", "ADD", float(n)) for n in range(50)]), tmp_path / "m.png", "m"
    )
    assert arguments["lengths"] == [float(n) for n in range(49, 9, -1)]
    assert set(arguments["labels"]) == {"a (ADD)"}
    assert arguments["texts"] == (
        "ms (median)",
        "m: 1225.000 ms in 50 operators, without the 10 shortest",
    )


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError):
        bench.plot_operators(PROFILE, tmp_path / "folder.png", "m")
