"""What took long to measure is in its file before anything is printed, and shown in any case."""

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from bench_results import result

from cct_export.bench import record


def run(folder, name, *arguments, stdout=subprocess.PIPE, limit=None, **environment):
    """Runs a command whose files may have ``limit`` bytes; returns the process."""
    code = f"from cct_export.commands.program import {name}_main; {name}_main()"
    limits = limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=os.environ | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=limits,
        timeout=300,
    )


@pytest.fixture
def slower(tmp_path):
    """Writes a baseline, and a result that is 40 % slower; returns the words of ``check``."""
    for name, median_ms in (("old", 2.0), ("new", 2.8)):
        results = [result("m-int8.tflite", median_ms, seed=seed, runs=4000) for seed in (1,)]
        fields = record.to_dict(results)
        (tmp_path / f"{name}.json").write_text(json.dumps(json_types(fields)))
    return ("check", "new.json", "--baseline", "old.json", "--any-machine")


def json_types(fields):
    from cct_export.records.encoding import to_json

    return to_json(fields)


def test_a_terminal_that_takes_no_text_leaves_every_file_whole(tmp_path, exports):
    files = ("--json", "r.json", "--csv", "r.csv", "--markdown", "r.md", "--html", "r.html")
    words = (exports("tflite").path, "--min-runs", 3, "--min-seconds", 0, *files)
    with Path("/dev/full").open("w") as full:
        done = run(tmp_path, "bench", "tflite", *words, stdout=full)
    assert len(json.loads((tmp_path / "r.json").read_text())["results"]) == 1
    assert len(list(csv.DictReader((tmp_path / "r.csv").open()))) == 1
    assert (tmp_path / "r.md").is_file()
    assert (tmp_path / "r.html").read_text().endswith("</html>")
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last == "error: cannot read or write: No space left on device"
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("name", ["inspect", "check"])
def test_a_file_that_cannot_be_written_hides_neither_the_others_nor_the_result(
    tmp_path, slower, name
):
    words = {
        "inspect": ("export", "inspect", "cct_14_7x2_384"),
        "check": ("bench", *slower),
    }[name]
    limit = {"inspect": 8000, "check": 2000}[name]
    done = run(tmp_path, *words, "--json", "r.json", "--csv", "r.csv", limit=limit)
    shown, error = done.stdout.decode(), done.stderr.decode().splitlines()[-1]
    assert not (tmp_path / "r.json").exists()
    assert error == "error: cannot write r.json: File too large"
    # The code of the error, not that of the regression.
    assert done.returncode == 1
    if name == "inspect":
        assert "to 1,000 logits" in shown
    else:
        assert "regression: m-int8.tflite" in done.stderr.decode()
        assert len(list(csv.DictReader((tmp_path / "r.csv").open()))) == 1
    assert not list(tmp_path.glob(".tmp*"))


def test_json_goes_to_standard_output_though_another_file_cannot_be_written(tmp_path):
    words = ("inspect", "cct_14_7x2_384", "--csv", "r.csv", "--json", "-")
    done = run(tmp_path, "export", *words, limit=500)
    assert done.returncode == 1
    assert json.loads(done.stdout)["model"]["layers"]
    assert done.stderr.decode().splitlines()[-1] == "error: cannot write r.csv: File too large"


def test_every_file_that_cannot_be_written_is_named(tmp_path):
    words = ("inspect", "cct_14_7x2_384", "--csv", "r.csv", "--json", "r.json")
    done = run(tmp_path, "export", *words, limit=500)
    errors = [line for line in done.stderr.decode().splitlines() if "cannot write" in line]
    assert {error.split()[3] for error in errors} == {"r.csv:", "r.json:"}
    assert all(error.startswith("error: ") for error in errors)


@pytest.mark.parametrize("words", ["inspect cct_2_3x2_32", "--help", "inspect --help", "--version"])
def test_a_full_disk_is_an_error_of_one_line(tmp_path, words):
    with Path("/dev/full").open("w") as full:
        done = run(tmp_path, "export", *words.split(), stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"error: cannot read or write: No space left on device\n"


def test_where_no_error_can_be_written_its_code_tells(tmp_path, exports):
    script = '"$@" 2> /dev/full'
    words = (exports("tflite").path, "--min-runs", "3", "--min-seconds", "0", "--json", "r.json")
    for name, arguments, code in (
        ("export", ("inspect", "nosuch.tflite"), 2),
        ("bench", ("tflite", *words), 0),
    ):
        main = f"from cct_export.commands.program import {name}_main; {name}_main()"
        command = ["bash", "-c", script, "bash", sys.executable, "-c", main, *arguments]
        assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE).returncode == code
    assert json.loads((tmp_path / "r.json").read_text())["results"]


def test_a_verdict_has_its_code_where_everything_was_written(tmp_path, slower):
    done = run(tmp_path, "bench", *slower, "--json", "r.json")
    assert done.returncode == 5, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["verdicts"][0]["status"] == "regression"


ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: "-".join(each.values()))
def test_any_encoding_shows_the_result_and_loses_none(tmp_path, exports, encoding):
    # An engine cannot open a name that Python cannot encode.
    path = tmp_path / ("m.tflite" if "LC_ALL" in encoding else "猫-Größe.tflite")
    path.write_bytes(exports("tflite").path.read_bytes())
    words = (path.name, "--min-runs", 3, "--min-seconds", 0, "--json", "r.json", "--html", "r.html")
    done = run(tmp_path, "bench", "tflite", *words, **encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["results"][0]["artifact"]["path"]
    assert (tmp_path / "r.html").is_file()
    assert b".tflite" in done.stdout
    assert b"wrote r.json" in done.stderr
    done = run(tmp_path, "export", "inspect", "cct_2_3x2_32", **encoding)
    assert done.returncode == 0, done.stderr
    assert b"32" in done.stdout
    done = run(tmp_path, "export", "inspect", "猫.tflite", **encoding)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: no such file")
    assert done.stderr.count(b"\n") == 1
