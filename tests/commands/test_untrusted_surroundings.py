"""What lies around a file, or is in it, neither runs, nor hangs, nor is believed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cct_export.records import sidecar

EVIL = "open('executed', 'w').write('by ' + __name__)\n"


@pytest.fixture
def artifact(exports, tmp_path):
    """A copy of an exported file, with its sidecar."""
    source = exports("tflite").path
    copy = tmp_path / "m.tflite"
    copy.write_bytes(source.read_bytes())
    sidecar.path_of(copy).write_bytes(sidecar.path_of(source).read_bytes())
    return copy


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("module", ["ai_edge_litert.py", "statistics.py"])
def test_a_module_in_the_working_directory_is_imported_by_no_process_of_ours(
    tmp_path, artifact, picture, in_process, monkeypatch, module
):
    (tmp_path / "m.tflite.json").unlink()
    (tmp_path / module).write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert in_process("export", "predict", artifact, picture).code == 0
    assert in_process("bench", "tflite", artifact, "--min-seconds", 0).code == 0
    assert not (tmp_path / "executed").exists()


def test_a_pipe_is_refused_as_image_data_and_sidecar(tmp_path, artifact, in_process):
    for name in ("image.png", "data.npz"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "m.tflite.json").unlink()
    os.mkfifo(tmp_path / "m.tflite.json")
    ended = in_process("export", "predict", artifact, tmp_path / "image.png")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    arguments = ("--accuracy", "--data", tmp_path / "data.npz", "--min-seconds", 0)
    ended = in_process("bench", "tflite", artifact, *arguments)
    assert ended.code == 2
    assert "is neither a file nor a folder" in ended.err


def test_an_image_of_a_format_that_runs_programs_is_refused(tmp_path, artifact, in_process):
    path = tmp_path / "eps.png"
    Image.new("RGB", (8, 8)).save(path, format="EPS")
    ended = in_process("export", "predict", artifact, path)
    assert ended.code == 1
    assert "not a readable image" in ended.err


def _change(artifact, **fields):
    """Changes fields of the sidecar of ``artifact``; None removes one."""
    path = artifact.with_name("m.tflite.json")
    record = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scheme", 3),
        ("source", {}),
        ("scheme", None),
        ("source", None),
        ("labels", "cat"),
        ("labels", [1, 2]),
        ("golden", {"origin": "x", "shape": [2**40, 4], "images_zlib_base64": "", "logits": []}),
        ("golden", {"origin": "x", "shape": [-1, 4], "images_zlib_base64": "", "logits": []}),
        ("golden", []),
    ],
)
def test_a_sidecar_with_a_missing_or_malformed_field_counts_as_none(artifact, key, value):
    assert sidecar.read(artifact) is not None
    _change(artifact, **{key: value})
    assert sidecar.read(artifact) is None


@pytest.mark.parametrize("nested", [True, False])
def test_a_file_with_a_useless_sidecar_is_measured_without_parity(artifact, in_process, nested):
    path = artifact.with_name("m.tflite.json")
    if nested:
        path.write_text("[" * 200_000)
    else:  # of a model with three classes
        golden = json.loads(path.read_text())["golden"]
        _change(artifact, golden=golden | {"logits": [row[:3] for row in golden["logits"]]})
    ended = in_process("bench", "tflite", artifact, "--min-seconds", 0, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["results"][0]["parity"] is None


def test_an_unknown_scheme_in_a_sidecar_is_an_error(artifact, in_process):
    _change(artifact, scheme="[/red]int3")
    ended = in_process("bench", "tflite", artifact, "--min-seconds", 0)
    assert ended.code == 1
    assert "not one of none, fp16" in ended.err


@pytest.mark.parametrize("name", ["m.tflite", "m.tflite.json", "other.onnx", "x.keras"])
def test_a_record_is_not_written_over_an_artifact(tmp_path, artifact, in_process, name):
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    ended = in_process("bench", "tflite", artifact, "--json", tmp_path / name)
    assert ended.code == 2
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_record_that_cannot_be_written_is_refused_before_the_work(tmp_path, in_process):
    (tmp_path / "file").write_text("")
    ended = in_process(
        "export", "tflite", tmp_path / "absent.keras", "--json", tmp_path / "file" / "x.json"
    )
    assert ended.code == 1
    assert "is not a folder" in ended.err


def test_a_backend_that_keras_does_not_know_is_named(cct_bench):
    ended = cct_bench("keras", KERAS_BACKEND="foo")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "foo" in ended.stderr


@pytest.mark.slow
def test_keras_json_does_not_change_the_shipped_model(tmp_path, cct_export):
    (tmp_path / "keras.json").write_text(
        json.dumps({"floatx": "float16", "image_data_format": "channels_first"})
    )
    ended = cct_export("tflite", "--samples", "16", KERAS_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_command_ended_from_outside_clears_up(tmp_path, digits_model):
    folder = tmp_path / "temporary"
    folder.mkdir()
    code = "from cct_export.commands.program import export_main; export_main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "tflite", str(digits_model), "-o", "m.tflite", "-v"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not any(folder.iterdir()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not (tmp_path / "m.tflite").exists()
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".tmp-")]
