"""What cannot work ends in one line that says why, and leaves no file behind."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image


def _tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def models(tmp_path_factory, digits_model):
    """Files that are not models, or not image classifiers."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "text.keras").write_text("not a model\n" * 50)
    whole = digits_model.read_bytes()
    (folder / "truncated.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.keras").write_bytes(b"")
    (folder / "note.txt").write_text("not a model")
    (folder / "text.weights.h5").write_text("not a model")
    (folder / "norun").mkdir()
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(folder / "vector.keras")
    code = keras.layers.Lambda(lambda x: x * 2)
    keras.Sequential(
        [keras.Input((8, 8, 3)), code, keras.layers.Flatten(), keras.layers.Dense(3)]
    ).save(folder / "lambda.keras")
    return folder


@pytest.fixture
def refused(in_process, tmp_path, monkeypatch):
    """Runs a command that must end in one line with nothing written; returns the line."""
    monkeypatch.chdir(tmp_path)

    def run(code, name, *arguments):
        before = _tree(tmp_path)
        ended = in_process(name, *arguments)
        assert ended.code == code, ended.err
        assert ended.out == ""
        assert "Traceback" not in ended.err
        assert "this is a bug" not in ended.err
        assert len(ended.err.splitlines()) == 1, ended.err
        assert ended.err.startswith("error: ")
        assert _tree(tmp_path) == before
        return ended.err

    return run


@pytest.fixture
def misused(in_process, tmp_path, monkeypatch):
    """Runs a command whose use is wrong; returns what click says."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        ended = in_process(name, *arguments)
        assert ended.code == 2, ended.err
        assert ended.out == ""
        assert ended.err.startswith("error: ")
        assert len(ended.err.splitlines()) == 1
        assert _tree(tmp_path) == []
        return ended.err

    return run


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("text.keras", "not a .keras file"),
        ("empty.keras", "not a .keras file"),
        ("truncated.keras", "not a .keras file, or it is truncated"),
        ("text.weights.h5", "not a readable HDF5 file"),
        ("vector.keras", "is not an image classifier"),
        ("lambda.keras", "holds Python code"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(refused, models, format, model, reason):
    assert reason in refused(1, "export", format, models / model, "-o", f"m.{format}")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("missing.keras", "no such model file"),
        ("missing.weights.h5", "no such model file"),
        ("missing.tflite", "no such model file"),
        ("text.kears", "no such model file"),
        ("note.txt", "is not a model that can be read"),
        ("norun", "a folder without run.json"),
    ],
)
def test_what_is_no_model_is_refused_as_wrong_use(refused, models, format, model, reason):
    assert reason in refused(2, "export", format, models / model, "-o", f"m.{format}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("export", ("tflite", "vit_huge")),
        ("export", ("onnx", "vit_huge")),
        ("export", ("train", "--model", "vit_huge", "--data", "digits")),
        ("bench", ("tflite", "vit_huge")),
    ],
)
def test_an_unknown_preset_is_refused_with_a_list_of_presets(refused, name, arguments):
    line = refused(2, name, *arguments)
    assert "preset" in line
    assert "called" in line
    assert "vit_huge" in line
    assert "cct_keras_io" in line


@pytest.mark.parametrize(
    ("name", "command"),
    [("export", "tflite"), ("export", "onnx"), ("bench", "tflite"), ("bench", "onnx")],
)
def test_an_unknown_scheme_is_refused_with_a_list_of_schemes(refused, digits_model, name, command):
    line = refused(2, name, command, digits_model, "--quantize", "int4")
    assert "int4" in line
    assert "none, fp16, int8-dynamic, int8" in line


@pytest.mark.parametrize("data", ["empty", "missing", "one/empty", "note.npz"])
def test_data_without_images_is_refused(refused, digits_model, tmp_path, data):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one/empty/class").mkdir(parents=True)
    (tmp_path / "note.npz").write_text("no archive")
    code = 2 if data == "missing" else 1
    refused(code, "export", "tflite", digits_model, "--data", data, "-o", "m.tflite")
    refused(code, "export", "train", "--data", data, "-o", "run")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_data_of_other_classes_than_the_model_is_refused(
    refused, tmp_path, digits_model, digit_images, format
):
    images, labels = digit_images
    splits = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "d.npz", **splits, classes=np.array(list("abcdefghij")))
    line = refused(1, "export", format, digits_model, "--data", "d.npz", "-o", f"m.{format}")
    assert "give the data it was trained for" in line


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("file/m.tflite", "file is not a folder"),
        ("file/deeper/m.tflite", "file is not a folder"),
        ("folder.tflite", "it is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    refused, tmp_path, digits_model, output, reason
):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.tflite").mkdir()
    assert reason in refused(1, "export", "tflite", digits_model, "-o", output)


@pytest.mark.parametrize("output", ["m.onnx", "m", "m.TFLITE.bak"])
def test_an_output_of_another_format_is_refused_as_wrong_use(refused, digits_model, output):
    assert "ends in .tflite" in refused(2, "export", "tflite", digits_model, "-o", output)


def test_a_run_directory_that_cannot_be_made_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(1, "export", "train", "--data", "digits", "-o", "file/run")


@pytest.mark.parametrize("source", ["tflite", "onnx", "keras"])
def test_predict_refuses_files_that_are_not_images(
    refused, tmp_path, exports, digits_model, source
):
    path = digits_model if source == "keras" else exports(source).path
    (tmp_path / "note.png").write_text("not an image")
    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    half = (tmp_path / "good.png").read_bytes()[:60]
    (tmp_path / "half.png").write_bytes(half)
    (tmp_path / "empty").mkdir()
    assert "note.png" in refused(1, "export", "predict", path, "note.png")
    assert "half.png" in refused(1, "export", "predict", path, "half.png")
    assert "no such image" in refused(2, "export", "predict", path, "good.png", "missing.png")
    assert "in the folder empty" in refused(2, "export", "predict", path, "empty")
    assert "matches *.gif" in refused(2, "export", "predict", path, "*.gif")


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_missing_artifact_is_refused_by_every_command(refused, tmp_path, suffix):
    path = f"missing.{suffix}"
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    assert "no such file" in refused(2, "export", "verify", path)
    assert "no such file" in refused(2, "export", "inspect", path)
    assert "no such file" in refused(2, "export", "bundle", path, "--target", "android")
    assert "no such file" in refused(2, "export", "predict", path, "x.png")
    assert "no such file" in refused(2, "bench", suffix, path)


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_broken_artifact_is_refused_by_every_command(refused, tmp_path, exports, suffix):
    whole = exports(suffix).path.read_bytes()
    path = f"half.{suffix}"
    (tmp_path / path).write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    assert path in refused(1, "export", "verify", path)
    assert path in refused(1, "export", "predict", path, "good.png")
    assert path in refused(1, "bench", suffix, path)


def test_a_file_of_the_other_format_is_refused_by_bench(refused, exports):
    path = exports("onnx").path
    assert f"`cct-bench onnx {path}` measures it" in refused(2, "bench", "tflite", path)


def test_verify_refuses_files_that_are_not_artifacts(refused, digits_model):
    assert "is no .tflite, .onnx or .ncnn.param file" in refused(
        2, "export", "verify", digits_model
    )


def test_a_foreign_artifact_is_verified_only_against_a_named_model(refused, tmp_path, exports):
    import onnx

    model = onnx.load(exports("onnx").path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    assert "name it with --against" in refused(1, "export", "verify", "m.onnx")


def test_cifar_images_are_refused_by_a_model_of_another_size(
    refused, tmp_path, small_spec, digits_model
):
    from cct_export.model.cct import CCT

    folder = tmp_path / "m"
    folder.mkdir()
    CCT(dataclasses.replace(small_spec, image_size=16)).save(folder / "m.keras")
    line = refused(1, "export", "tflite", "m/m.keras", "--data", "digits", "-o", "m.tflite")
    assert "(32, 32, 3)" in line
    assert "(16, 16, 3)" in line


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("export", ("onnx", "--io", "int8"), "is called 'int8': did you mean uint8?"),
        ("export", ("tflite", "--io", "int4"), "is called 'int4': did you mean int8?"),
        ("export", ("tflite", "--samples", "0"), "0 is not in the range"),
        ("export", ("tflite", "--num-calibration-samples", "0"), "0 is not in the range"),
        ("export", ("tflite", "a.keras", "b.keras"), "unexpected extra argument"),
        ("export", ("predict",), "missing argument"),
        ("export", ("predict", "a.tflite"), "a.tflite is taken as the model"),
        ("export", ("predict", "a.png", "b.onnx"), "name the model before the images"),
        ("export", ("verify",), "missing argument"),
        ("export", ("train", "--epochs", "many"), "not a valid integer"),
        ("bench", ("tflite", "--min-runs", "0"), "0 is not in the range"),
        ("bench", ("keras", "--batch", "0"), "is not a list of positive integers"),
    ],
)
def test_wrong_use_is_a_usage_error(misused, name, arguments, reason):
    assert reason in misused(name, *arguments)


def test_a_hyperparameter_out_of_bounds_is_refused(refused):
    line = refused(2, "export", "train", "--epochs", "0")
    assert "epochs must be at least 1, not 0" in line


def test_verbose_shows_where_an_error_came_from(in_process, tmp_path):
    ended = in_process("export", "tflite", tmp_path / "missing.keras", "-v")
    assert ended.code == 2
    assert "Traceback (most recent call last)" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: no such model file")


def test_an_unwritable_json_file_is_refused(in_process, tmp_path, exports):
    (tmp_path / "file").write_text("in the way")
    ended = in_process(
        "export",
        "verify",
        exports("tflite").path,
        "--samples",
        8,
        "--json",
        tmp_path / "file/r.json",
    )
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: cannot write")
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_standard_output_is_one_json_document_though_libraries_print(cct_export, digits_model):
    arguments = ("tflite", digits_model, "-o", "m.tflite", "--quantize", "int8", "--samples", 16)
    done = cct_export(*arguments, "--json", "-", "-v", TF_CPP_MIN_LOG_LEVEL="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"]["passed"] is True
    assert len(done.stderr) > 500, "the libraries were silent: this test shows nothing now"


@pytest.mark.slow
def test_messages_of_libraries_are_hidden_without_verbose(cct_export, digits_model):
    arguments = ("onnx", digits_model, "-o", "m.onnx", "--samples", 16)
    done = cct_export(*arguments, TF_CPP_MIN_LOG_LEVEL="0")
    assert (done.returncode, done.stdout) == (0, "")
    file, parity = done.stderr.splitlines()
    assert file.startswith("wrote m.onnx: onnx none, ")
    assert parity.startswith("parity passed on 16 photo crops")


NOISY = """
import logging, os, sys, warnings
import click
from cct_export.commands.options import Outcome, common

@click.command()
@common
def command():
    os.write(1, b"native output\\n")
    os.write(2, b"native message\\n")
    print("output")
    warnings.warn("warning")
    logging.getLogger("cct_export").info("progress")
    return Outcome({"passed": True})

command()
"""


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        ((), ["output", "progress"]),
        (("-q",), ["output"]),
        (("-v",), ["native output", "native message", "output", "warning", "progress"]),
    ],
)
def test_libraries_that_print_leave_standard_output_to_json(arguments, stderr):
    command = [sys.executable, "-c", NOISY, "--json", "-", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"passed": True}
    lines = done.stderr.splitlines()
    assert [text for text in stderr if not any(text in line for line in lines)] == []
    if "-v" not in arguments:
        assert sorted(lines) == sorted(stderr)


def test_quiet_prints_nothing_of_an_export_that_passed(in_process, digits_model, tmp_path):
    arguments = ("onnx", digits_model, "-o", tmp_path / "m.onnx", "--samples", 8, "-q")
    assert in_process("export", *arguments) == (0, "", "")


def test_json_is_written_to_a_file(in_process, tmp_path, exports):
    path = exports("tflite").path
    out = tmp_path / "new/record.json"
    ended = in_process("export", "verify", path, "--samples", 8, "--json", out)
    assert ended.code == 0
    assert ended.out == ""
    assert json.loads(out.read_text())["parity"]["samples"] == 8


@pytest.mark.parametrize(
    "line",
    [
        "tflite {}", "onnx {}.keras", "export {}", "inspect {}", "import {}.safetensors",
        "quantize-report {}", "predict {} x.png", "predict {}.png", "predict {}/*.png",
        "tflite --data {}", "verify m.tflite --data {}", "train --from {}", "train --data {}.npz",
        "train --recipe {}.toml", "train --resume -o {}", "push me/x --run {}",
    ],
)  # fmt: skip
def test_the_folder_of_a_user_who_does_not_exist_is_not_there(in_process, exports, line):
    path, name = str(exports("tflite").path), "~nosuchuser/x"
    words = [word.format(name).replace("m.tflite", path) for word in line.split()]
    ended = in_process("export", *words)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert "this is a bug" not in ended.err
