"""``cct-export ncnn``: files that are verified by ncnn before they get their names."""

import hashlib

import keras
import pytest
from keras import layers

import cct_export
from cct_export.records import sidecar

pytest.importorskip("ncnn", reason="ncnn is not installed: pip install 'cct-export[ncnn]'")
FILES = ["m.ncnn.bin", "m.ncnn.param", "m.ncnn.param.json"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("preset", ["cct_2_3x2_32", "cct_keras_io"])
def test_a_preset_has_the_logits_of_keras(tmp_path, in_process, preset):
    ended = in_process("export", "ncnn", preset, "-o", tmp_path / "m.ncnn.param",
                       "--parity-samples", 50, "--json", "-")  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.record["parity"]["sqnr_db"] > 100
    assert names_in(tmp_path) == FILES


def test_files_of_half_and_of_a_quarter_pass_the_policies_of_their_schemes(tmp_path, digits_run):
    sizes = {}
    for scheme in ("none", "fp16", "int8"):
        exported = cct_export.export_ncnn(digits_run, output=f"{tmp_path}/", scheme=scheme)
        assert exported.parity.passed, exported.parity.failures
        assert exported.artifact.path.name.endswith(".ncnn.param")
        weights = exported.artifact.path.with_suffix(".bin")
        sizes[scheme] = weights.stat().st_size
        total = sizes[scheme] + exported.artifact.path.stat().st_size
        assert exported.artifact.size_bytes == total
    assert sizes["int8"] < 0.7 * sizes["fp16"] < 0.42 * sizes["none"]


def test_int8_of_the_default_model_needs_no_images(tmp_path, in_process):
    path = tmp_path / "m.ncnn.param"
    command = ("export", "ncnn", "-o", path, "--quantize", "int8", "--parity-samples", 50)
    ended = in_process(*command, "--json", "-")
    assert ended.code == 0, ended.err
    assert "calibrated on the model's record" in ended.err
    summary = ended.record["artifact"]["quantization"]
    assert summary["static"]
    assert summary["dynamic"]
    assert ended.record["artifact"]["size_bytes"] < 350_000


def test_min_sqnr_keeps_steps_in_float(tmp_path, digits_run, in_process):
    path = tmp_path / "m.ncnn.param"
    command = ("export", "ncnn", digits_run, "-o", path, "--quantize", "int8")
    ended = in_process(*command, "--min-sqnr", 45, "--samples", 50, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["artifact"]["quantization"]["kept_float"]
    assert ended.record["parity"]["sqnr_db"] >= 45


def test_the_sidecar_and_the_file_tell_the_checksum_of_the_weights(tmp_path, digits_run):
    path = tmp_path / "m.ncnn.param"
    exported = cct_export.export_ncnn(digits_run, output=path, parity_samples=20)
    beside = sidecar.read(path)
    assert beside is not None
    assert beside.contract == exported.artifact.contract
    digest = hashlib.sha256((tmp_path / "m.ncnn.bin").read_bytes()).hexdigest()
    assert beside.contract.weights_sha256 == digest
    assert sidecar.examine(path).warning == ""


def test_the_same_plan_gives_the_same_bytes(tmp_path, digits_run):
    contents = []
    for name in ("a", "b"):
        path = tmp_path / name / "m.ncnn.param"
        cct_export.export_ncnn(digits_run, output=path, parity_samples=20)
        contents.append([path.read_bytes(), path.with_suffix(".bin").read_bytes()])
    assert contents[0] == contents[1]


def test_a_file_that_fails_parity_is_rejected_with_its_weights(tmp_path, digits_run, in_process):
    path = tmp_path / "m.ncnn.param"
    assert in_process("export", "ncnn", digits_run, "-o", path, "--samples", 20).code == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    command = ("export", "ncnn", digits_run, "-o", path, "--samples", 20)
    assert in_process(*command, "--quantize", "fp16", "--min-sqnr", 200).code == 3
    rejected = ["m.ncnn.bin.rejected", "m.ncnn.param.rejected"]
    assert names_in(tmp_path) == sorted([*FILES, *rejected])
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    assert in_process(*command).code == 0
    assert names_in(tmp_path) == FILES


def test_other_commands_take_the_file(tmp_path, digits_run, in_process):
    path = tmp_path / "m.ncnn.param"
    cct_export.export_ncnn(digits_run, output=path, parity_samples=20)
    verified = in_process("export", "verify", path, "--samples", 20, "--json", "-")
    assert verified.code == 0, verified.err
    assert verified.record["artifact"]["format"] == "ncnn"
    predicted = in_process("export", "predict", path, "docs/cat.jpg", "--json", "-")
    assert predicted.code == 0, predicted.err
    command = ("bench", "ncnn", path, "--profile", "quick", "--min-seconds", 0.05, "--json", "-")
    measured = in_process(*command)
    assert measured.code == 0, measured.err
    (result,) = measured.record["results"]
    assert result["parity"]["passed"]
    assert result["artifact"]["size_bytes"] > path.stat().st_size
    (first, second) = cct_export.time_together([path, path], rounds=2, burst=2)
    assert len(first) == len(second) == 4


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("export inspect", "its lines are ncnn's layers"),
        ("export bundle --target android", "android takes .tflite files, not .ncnn.param"),
        ("bench ncnn --device ssh:nobody@nowhere", "measures .tflite and .onnx files"),
        ("bench ncnn --device adb", "--device adb has no program for ncnn"),
        ("bench tflite", "`cct-bench ncnn"),
    ],
)
def test_what_has_no_use_for_the_file_says_so(tmp_path, digits_run, in_process, command, reason):
    path = tmp_path / "m.ncnn.param"
    cct_export.export_ncnn(digits_run, output=path, parity_samples=20)
    program, name, *options = command.split()
    ended = in_process(program, name, path, *options)
    assert ended.code == 2, ended.err
    assert reason in ended.err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ncnn --quantize int8-full", "choose from none, fp16, int8"),
        ("ncnn --quantize auto", "choose from none, fp16, int8"),
        ("ncnn -o m.param", "choose a name that ends in .ncnn.param"),
        ("ncnn --io uint8", "--io"),
        ("export --format ncnn --target x86", "ncnn files have no target"),
        ("export --format ncnn --quantize int16x8", "no quantization scheme is called 'int16x8'"),
    ],
)
def test_options_of_other_formats_are_refused(in_process, options, reason):
    ended = in_process("export", *options.split())
    assert ended.code == 2
    assert reason in ended.err


def test_a_model_that_can_only_be_traced_is_refused_and_nothing_is_written(tmp_path, in_process):
    image = keras.Input((16, 16, 3))
    x = layers.Activation("mish")(layers.Conv2D(4, 3)(image))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    model.save(tmp_path / "m.keras")
    ended = in_process("export", "ncnn", tmp_path / "m.keras", "-o", tmp_path / "m.ncnn.param")
    assert ended.code == 1
    assert "no plan of steps that ncnn has layers for" in ended.err
    assert "mish" in ended.err
    assert names_in(tmp_path) == ["m.keras"]
