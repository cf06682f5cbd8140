"""classify.py of a Raspberry Pi bundle: the predictions of ``cct-export predict``, anywhere."""

import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hostile import FILE_NAME, controls


def _records(process):
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_the_predictions_are_those_of_predict(bundle_of, call, kind, exports, pictures, in_process):
    process = call(bundle_of(kind) / "classify.py", "--json", pictures)
    assert process.returncode == 0, process.stderr
    paths = sorted(path for path in pictures.iterdir() if path.suffix != ".txt")
    ended = in_process("export", "predict", exports(*kind).path, *paths, "--json", "-")
    records = _records(process)
    assert [record["image"] for record in records] == [str(path) for path in paths]
    for record, prediction in zip(records, ended.record["predictions"], strict=True):
        assert len(record["top"]) == 5
        for score, expected in zip(record["top"], prediction["top"], strict=True):
            assert score["label"] == expected["label"]
            assert score["probability"] == pytest.approx(expected["probability"], abs=1e-6)


def test_the_text_has_a_line_per_image(bundle_of, run, pictures):
    names = [str(pictures / name) for name in ("a.png", "d.png")]
    process = run(bundle_of() / "classify.py", *names, "--top", 2)
    assert process.returncode == 0
    lines = process.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == names
    assert all(line.count("%") == 2 for line in lines)


def test_a_broken_image_is_reported_and_the_others_are_classified(
    bundle_of, call, pictures, tmp_path
):
    content = (pictures / "b c.JPG").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    images = tmp_path / "half.jpg", tmp_path / "none.png", pictures / "a.png"
    process = call(bundle_of() / "classify.py", *images)
    assert process.returncode == 1
    assert len(process.stdout.splitlines()) == 1
    errors = [line for line in process.stderr.splitlines() if "not a readable image" in line]
    assert [Path(line.partition(": ")[0]).name for line in errors] == ["half.jpg", "none.png"]


def test_the_reason_why_an_image_cannot_be_read_is_plain(bundle_of, call, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    names = [pictures / "notes.txt", tmp_path / "none.png", tmp_path / "empty"]
    process = call(bundle_of() / "classify.py", *names)
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        f"{names[0]}: not a readable image: it is no PNG, JPEG, WebP, BMP or TIFF with 8 bits per "
        "channel",
        f"{names[1]}: not a readable image: No such file or directory",
        f"{names[2]}: no image in this folder",
    ]


def test_no_name_and_no_label_controls_a_terminal(bundle, call, pictures, tmp_path):
    model = bundle / "model.json"
    content = json.loads(model.read_text())
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    model.write_text(json.dumps(content | {"labels": [f"{i}{FILE_NAME}" for i in range(10)]}))
    sums = bundle / "SHA256SUMS"
    after = hashlib.sha256(model.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after))
    shutil.copy(pictures / "a.png", tmp_path / f"a{FILE_NAME}.png")
    (tmp_path / f"b{FILE_NAME}.png").write_text("no picture")
    names = [tmp_path / f"{letter}{FILE_NAME}.png" for letter in "abc"]
    process = call(bundle / "classify.py", *names)
    assert process.returncode == 1
    assert len(process.stdout.splitlines()) == 1
    assert len(process.stderr.splitlines()) == 2
    assert not controls((process.stdout + process.stderr).encode())
    for arguments in ((f"--{FILE_NAME}",), ("--watch", f"none{FILE_NAME}")):
        refused = call(bundle / "classify.py", *arguments)
        assert refused.returncode
        assert not controls(refused.stderr.encode())


@pytest.mark.parametrize("arguments", [[], ["--top", "0", "a.png"]])
def test_invalid_arguments_are_refused(bundle_of, call, arguments):
    process = call(bundle_of() / "classify.py", *arguments)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr


@pytest.fixture
def camera(tmp_path, monkeypatch):
    """Puts a shell script in place of the camera's program."""

    def stub(name, script):
        program = tmp_path / "bin" / name
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return stub


@pytest.mark.parametrize("name", ["rpicam-still", "libcamera-still"])
def test_a_photo_comes_from_the_cameras_program(bundle_of, call, pictures, tmp_path, camera, name):
    photo = pictures / "b c.JPG"
    camera(name, f'echo "$@" > {tmp_path}/arguments; cat "{photo}"')
    from_camera = call(bundle_of() / "classify.py", "--camera", "--json")
    assert from_camera.returncode == 0, from_camera.stderr
    from_file = call(bundle_of() / "classify.py", "--json", photo)
    assert _records(from_camera)[0]["top"] == _records(from_file)[0]["top"]
    assert "--output -" in (tmp_path / "arguments").read_text()


def test_an_error_of_the_camera_is_one_line(bundle_of, call, camera):
    camera("rpicam-still", "echo no cameras available >&2; exit 255")
    process = call(bundle_of() / "classify.py", "--camera")
    assert process.returncode == 1
    assert "no cameras" in process.stderr.splitlines()[-1]


def test_without_the_cameras_program_one_line_says_how_to_install_it(bundle_of, call, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    process = call(bundle_of() / "classify.py", "--camera")
    assert process.returncode == 1
    assert "apt" in process.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["model.tflite", "model.json"])
def test_a_changed_model_classifies_nothing(bundle, run, pictures, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    process = run(bundle / "classify.py", pictures / "a.png")
    assert (process.returncode, process.stdout) == (1, "")
    expected = f"error: {name} has another SHA-256 than in SHA256SUMS: copy it again\n"
    assert process.stderr == expected


def test_changed_weights_in_a_file_of_their_own_classify_nothing(
    bundle_of, call, pictures, tmp_path
):
    bundle = shutil.copytree(bundle_of(("ncnn", "none", "float32")), tmp_path / "bundle")
    weights = bundle / "model.ncnn.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for script, arguments in (("classify.py", [pictures / "a.png"]), ("selftest.py", [])):
        process = call(bundle / script, *arguments)
        assert process.returncode == 1
        assert "model.ncnn.bin has another SHA-256 than in SHA256SUMS" in (
            process.stdout + process.stderr
        )


@pytest.fixture
def watching(bundle, tmp_path):
    """A process that watches a folder: the folder, the lines it prints, and the process."""
    folder, output = tmp_path / "watched", tmp_path / "output.txt"
    folder.mkdir()
    script = bundle / "classify.py"
    text = script.read_text()
    assert "POLL_S = 1.0" in text
    script.write_text(text.replace("POLL_S = 1.0", "POLL_S = 0.1"))
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(script), "--watch", str(folder)],
            stdout=stream, stderr=subprocess.STDOUT, cwd=tmp_path, env={"PATH": os.defpath},
        )  # fmt: skip
    try:
        yield folder, lambda: output.read_text().splitlines(), process
    finally:
        process.kill()
        process.wait()


def _wait_for_lines(read_lines, name, count, limit_s=60):
    """Waits for ``count`` lines that begin with ``name``; returns all such lines."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        lines = [line for line in read_lines() if line.startswith(name)]
        if len(lines) >= count:
            return lines
        time.sleep(0.05)
    raise AssertionError(f"not {count} lines about {name}: {read_lines()}")


def test_a_watched_folder_gives_a_line_per_image_and_broken_ones_do_no_harm(watching, pictures):
    folder, read_lines, process = watching
    content = (pictures / "b c.JPG").read_bytes()
    (folder / "half.jpg").write_bytes(content[: len(content) // 2])
    (folder / "nothing.png").touch()
    (folder / ".hidden.png").write_bytes((pictures / "a.png").read_bytes())
    (folder / "folder.png").mkdir()
    (folder / "a\nb.png").write_bytes((pictures / "a.png").read_bytes())
    (folder / "z.png").write_bytes((pictures / "a.png").read_bytes())
    assert "%" in _wait_for_lines(read_lines, "z.png", 1)[0]
    assert "not a readable image" in _wait_for_lines(read_lines, "half.jpg", 1)[0]
    assert "not a readable image" in _wait_for_lines(read_lines, "nothing.png", 1)[0]
    assert "%" in _wait_for_lines(read_lines, r"'a\nb.png'", 1)[0]
    (folder / "half.jpg").write_bytes(content)  # its other half arrives
    assert "%" in _wait_for_lines(read_lines, "half.jpg", 2)[1]
    (folder / "later.png").write_bytes((pictures / "d.png").read_bytes())
    assert "%" in _wait_for_lines(read_lines, "later.png", 1)[0]
    assert process.poll() is None
    names = [line.partition(": ")[0] for line in read_lines() if "%" in line or "readable" in line]
    assert sorted(names) == sorted(
        ["z.png", "half.jpg", "half.jpg", "nothing.png", r"'a\nb.png'", "later.png"]
    )


def test_a_watch_ends_without_a_traceback_on_ctrl_c(watching, pictures):
    folder, read_lines, process = watching
    assert _wait_for_lines(read_lines, "watching", 1) == [f"watching {folder}; Ctrl-C stops"]
    shutil.copy(pictures / "a.png", folder / "a.png")
    _wait_for_lines(read_lines, "a.png", 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert "Traceback" not in "\n".join(read_lines())


def test_a_missing_folder_to_watch_is_an_error_of_one_line(bundle_of, call, tmp_path):
    process = call(bundle_of() / "classify.py", "--watch", tmp_path / "no such folder")
    assert process.returncode == 1
    assert "no such folder" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_probabilities_do_not_overflow_and_those_of_a_softmax_stay(bundle_of, monkeypatch):
    monkeypatch.syspath_prepend(bundle_of())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    classify = runpy.run_path(str(bundle_of() / "classify.py"))["classify"]
    sys.modules.pop("model", None)
    model = SimpleNamespace(
        description={"labels": ["a", "b", "c"], "output": {"activation": "none"}},
        prepare=lambda pixels: pixels,
        run=lambda prepared: prepared,
        dequantize=lambda outputs: outputs.astype(np.float32),
    )
    large = classify(model, np.array([[1e4, 0, -1e4]]), 2)
    assert large == [{"label": "a", "probability": 1.0}, {"label": "b", "probability": 0.0}]
    model.description["output"]["activation"] = "softmax"
    softmax = classify(model, np.array([[0.7, 0.2, 0.1]]), 2)
    assert [score["label"] for score in softmax] == ["a", "b"]
    assert softmax[0]["probability"] == pytest.approx(0.7)


def test_a_missing_library_is_named_with_the_command(bundle_of, run):
    process = run(bundle_of() / "classify.py", "cat.jpg", options=("-I", "-S"))
    assert process.returncode == 1
    assert process.stderr == (
        "error: numpy is not installed: .venv/bin/pip install -r requirements.txt\n"
    )


def test_a_missing_engine_is_named_with_the_command(bundle, call):
    # Under another name, because the tests' environment has the engine.
    text = (bundle / "model.py").read_text()
    (bundle / "model.py").write_text(text.replace("ai_edge_litert.interp", "no_such_engine.interp"))
    process = call(bundle / "classify.py", "cat.jpg")
    assert process.returncode == 1
    assert process.stderr == (
        "error: no_such_engine is not installed: .venv/bin/pip install -r requirements.txt\n"
    )
