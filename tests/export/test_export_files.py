"""Several files from one model in one run."""

import csv
import json

import pytest

import cct_export
from cct_export.errors import InvalidRequest, UnsupportedScheme
from cct_export.runtimes.keras import KerasSession


def test_every_format_and_scheme_is_written_and_the_model_runs_once(
    tmp_path, digits_run, monkeypatch
):
    calls = []
    invoke = KerasSession.invoke
    monkeypatch.setattr(
        KerasSession, "invoke", lambda session, x: calls.append(len(x)) or invoke(session, x)
    )
    exported = cct_export.export_files(
        digits_run, schemes=["none", "int8"], output=tmp_path / "new", parity_samples=64
    )
    assert [file.artifact.path.name for file in exported] == [
        "run.tflite", "run-int8.tflite", "run.onnx", "run-int8.onnx",
    ]  # fmt: skip
    assert all(file.parity.passed for file in exported)
    assert all(file.artifact.path.stat().st_size == file.artifact.size_bytes for file in exported)
    assert sum(calls) == 64


def test_the_files_are_those_of_single_exports(tmp_path, digits_run):
    options = {"parity_samples": 32, "data": "digits", "calibration_samples": 20}
    several = cct_export.export_files(digits_run, schemes="int8", output=tmp_path, **options)
    single = cct_export.export_tflite(
        digits_run, scheme="int8", output=tmp_path / "single.tflite", **options
    )
    assert several[0].artifact.sha256 == single.artifact.sha256


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"formats": "coreml"}, InvalidRequest, "no format is called 'coreml'"),
        ({"schemes": ["int8", "int9"]}, UnsupportedScheme, "did you mean int8"),
        ({"schemes": ()}, InvalidRequest, "nothing to export"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_file(tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        cct_export.export_files(output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_error_names_the_files_that_were_written_before(tmp_path, digits_run):
    (tmp_path / "run-int8.tflite.json").mkdir()
    with pytest.raises(cct_export.errors.OutputError, match=r"written before: .*run\.tflite\)"):
        cct_export.export_files(
            digits_run,
            formats="tflite",
            output=tmp_path,
            parity_samples=8,
            schemes=["none", "int8"],
        )


def test_the_command_prints_a_row_for_each_file_and_writes_them(in_process, tmp_path, digits_run):
    table = tmp_path / "files.csv"
    ended = in_process(
        "export", "export", digits_run, "--format", "TFLite", "--quantize", "none,FP16",
        "-o", tmp_path / "out", "--samples", 20, "--csv", table, "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader(table.open()))
    assert [row["scheme"] for row in rows] == ["none", "fp16"]
    assert all(row["path"] in ended.out for row in rows)
    record = json.loads((tmp_path / "r.json").read_text())
    assert [file["parity"]["passed"] for file in record["files"]] == [True, True]
    assert f"wrote {table}" in ended.err
    assert f"made the folder {tmp_path / 'out'}" in ended.err


@pytest.mark.parametrize("name", ["out", "new/"])
def test_an_output_may_be_a_folder(in_process, tmp_path, digits_run, name):
    (tmp_path / "out").mkdir()
    output = f"{tmp_path}/{name}"
    ended = in_process("export", "tflite", digits_run, "-o", output, "--samples", 8)
    assert ended.code == 0, ended.err
    assert (tmp_path / name.strip("/") / "run.tflite").is_file()
