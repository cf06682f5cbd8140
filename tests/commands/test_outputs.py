"""Files that commands write beside what they print."""

import csv
import json

import pytest
from PIL import Image

QUICK = ("--min-runs", 5, "--min-seconds", 0, "--warmup-seconds", 0)


def outputs(folder, *kinds):
    """Options that write files of these kinds into a folder that is not there yet."""
    return [word for kind in kinds for word in (f"--{kind}", folder / f"table.{kind}")]


@pytest.mark.parametrize("command", ["tflite", "compare"])
def test_results_are_written_in_all_formats_and_named(in_process, exports, tmp_path, command):
    folder = tmp_path / "new"
    ended = in_process(
        "bench", command, exports("tflite").path, *QUICK,
        *outputs(folder, "html", "markdown", "csv", "json"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    for kind in ("html", "markdown", "csv", "json"):
        assert f"wrote {folder / f'table.{kind}'}" in ended.err
    assert ended.err.count(f"made the folder {folder}") == 1
    assert (folder / "table.html").read_text().startswith("<!DOCTYPE html>")
    assert "| artifact |" in (folder / "table.markdown").read_text()
    (row,) = csv.DictReader((folder / "table.csv").open())
    assert row["artifact"] == exports("tflite").path.name
    assert json.loads((folder / "table.json").read_text())["results"]


@pytest.mark.parametrize(
    ("arguments", "column", "count"),
    [
        (("quantize-report", "{run}", "--samples", "10"), "step", 10),
        (("inspect", "{file}"), "kind", 40),
        (("inspect", "cct_7_3x1_32"), "name", 10),
        (("predict", "{file}", "{image}", "--top", "3"), "label", 3),
    ],
    ids=["quantize-report", "inspect a file", "inspect a preset", "predict"],
)
def test_every_table_can_be_written(
    in_process, exports, digits_run, tmp_path, arguments, column, count
):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    places = {"run": digits_run, "file": exports("tflite").path, "image": tmp_path / "red.png"}
    ended = in_process(
        "export", *(word.format(**places) for word in arguments),
        *outputs(tmp_path, "markdown", "csv"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert len(rows) >= count
    assert all(row[column] for row in rows)
    lines = (tmp_path / "table.markdown").read_text().splitlines()
    assert len(lines) == len(rows) + 2


def test_a_quiet_command_does_not_say_what_it_wrote(in_process, exports, tmp_path):
    path = tmp_path / "table.csv"
    ended = in_process("export", "inspect", exports("tflite").path, "--csv", path, "--quiet")
    assert path.is_file()
    assert ended.err == ""


@pytest.mark.parametrize("kind", ["html", "markdown", "csv"])
def test_an_output_that_would_replace_a_source_is_refused(in_process, exports, tmp_path, kind):
    record = tmp_path / "r.json"
    record.write_text("{}")
    ended = in_process("bench", "compare", record, f"--{kind}", record)
    assert ended.code == 2
    assert "is named twice" in ended.err
    assert record.read_text() == "{}"


def test_compare_hands_every_file_to_the_delegate(in_process, exports):
    paths = [exports("tflite").path, exports("tflite", "int8").path]
    ended = in_process("bench", "compare", *paths, "--delegate", "REFERENCE", *QUICK, "--json", "-")
    assert ended.code == 0, ended.err
    assert [row["runtime"]["delegate"] for row in ended.record["results"]] == ["reference"] * 2


def test_compare_refuses_a_delegate_that_one_of_the_engines_does_not_have(in_process, exports):
    paths = [exports("tflite").path, exports("onnx").path]
    ended = in_process("bench", "compare", *paths, "--delegate", "reference")
    assert ended.code == 2
    assert "reference" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    "options",
    [
        ("predict", "model.tflite", "red.png", "--json", "red.png"),
        ("predict", "model.tflite", "photos", "--csv", "photos/red.png"),
        ("predict", "model.tflite", "red.png", "--csv", "./red.png"),
        ("import", "w.pth", "--labels", "labels.txt", "--json", "labels.txt"),
        ("verify", "model.tflite", "--data", "data.npz", "--json", "link.npz"),
        ("inspect", "model.tflite", "--markdown", "a.md", "--csv", "../{folder}/a.md"),
        ("inspect", "model.tflite", "--json", "x.html", "--csv", "x.html"),
        ("train", "-o", "run", "--json", "run/run.json"),
    ],
    ids=" ".join,
)
def test_no_command_overwrites_what_it_reads_or_another_output(
    in_process, exports, tmp_path, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in ("red.png", "photos/red.png"):
        Image.new("RGB", (40, 40), "red").save(path)
    for name in ("labels.txt", "data.npz", "w.pth"):
        (tmp_path / name).write_text("content")
    (tmp_path / "link.npz").symlink_to("data.npz")
    (tmp_path / "model.tflite").write_bytes(exports("tflite").path.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = in_process("export", *(word.format(folder=tmp_path.name) for word in options))
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "choose another" in ended.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_output_may_be_written_again(in_process, exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "a.csv", "run.json", "fastrun.json"):
        ended = in_process("export", "inspect", exports("tflite").path, "--csv", name)
        assert ended.code == 0, ended.err


def test_an_argument_that_can_be_no_path_is_refused_as_what_it_is(in_process, tmp_path):
    scheme = "x" * 5000
    ended = in_process("export", "tflite", "--quantize", scheme, "--json", tmp_path / "a.json")
    assert ended.code == 2
    assert ended.err.startswith("error: no quantization scheme is called")


@pytest.mark.parametrize("option", ["--json", "--csv", "--markdown"])
def test_a_name_that_ends_with_a_slash_is_no_file(in_process, exports, tmp_path, option):
    ended = in_process("export", "inspect", exports("tflite").path, option, f"{tmp_path}/none/")
    assert ended.code == 2
    assert "is a folder: name a file" in ended.err
    assert list(tmp_path.iterdir()) == []
