"""The C++ bundles, compiled with a real compiler and run on the real engines."""

import re
import subprocess
from pathlib import Path

import linux_cpp
import numpy as np
import pytest
from cases.other_classifiers import small
from hostile import FILE_NAME, controls
from linux_cpp import run
from PIL import Image

from cct_export import api, export_onnx

pytestmark = [pytest.mark.cpp, pytest.mark.timeout(1800)]  # ncnn is compiled first
FORMATS = ["onnx", "ncnn"]


@pytest.fixture(scope="module")
def built(engine_of, exports, tmp_path_factory):
    """Returns a bundle of an export, compiled; its name has spaces and an apostrophe."""

    def build(scheme, io="float32", artifact=None, format="onnx"):
        engine = engine_of(format)
        folder = tmp_path_factory.mktemp("cpp") / f"it's {scheme} {io}"
        path = artifact or exports(format, scheme, io).path
        api.bundle(path, target="linux-cpp", output=folder)
        linux_cpp.compile(folder, engine)
        return folder

    return build


@pytest.fixture(scope="module")
def float32(built):
    return built("none")


@pytest.fixture(scope="module")
def of_ncnn(built):
    return built("none", format="ncnn")


@pytest.mark.parametrize(
    ("format", "scheme", "io"),
    [("onnx", "none", "float32"), ("onnx", "int8", "uint8"), ("ncnn", "fp16", "float32")],
)
def test_the_selftest_passes_and_measures_latency(built, format, scheme, io):
    process = run(built(scheme, io, format=format) / "build/classify", "--selftest")
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.startswith({"onnx": "ONNX Runtime 1.", "ncnn": "ncnn 1."}[format])
    assert process.stdout.splitlines()[-1] == "PASSED"
    latency = re.search(r"median ([\d.]+) ms, p90 ([\d.]+) ms, (\d+) runs", process.stdout)
    assert float(latency[1]) <= float(latency[2])
    assert int(latency[3]) >= 100


def test_the_selftest_fails_with_other_golden_logits(float32):
    golden = float32 / "build/golden.bin"
    content = golden.read_bytes()
    try:
        logits = np.frombuffer(content[-16 * 10 * 4 :], "<f4").copy()
        logits[::10] += 0.01 * np.abs(logits).max()
        golden.write_bytes(content[: -logits.nbytes] + logits.tobytes())
        process = run(float32 / "build/classify", "--selftest")
        golden.write_bytes(content[:-4])
        truncated = run(float32 / "build/classify", "--selftest")
    finally:
        golden.write_bytes(content)
    assert process.returncode == 1
    assert "FAILED: SQNR in dB is" in process.stdout
    assert "FAILED: max |difference| is" in process.stdout
    assert "latency" not in process.stdout
    assert truncated.returncode == 1
    assert "truncated" in truncated.stderr


def test_the_selftest_fails_without_a_label(float32):
    labels = float32 / "build/labels.txt"
    content = labels.read_text()
    try:
        labels.write_text(content.partition("\n")[2])
        process = run(float32 / "build/classify", "--selftest")
    finally:
        labels.write_text(content)
    assert process.returncode == 1
    assert "FAILED: labels.txt does not have one line per class" in process.stdout


@pytest.mark.parametrize("format", FORMATS)
def test_the_predictions_for_pictures_of_any_size_are_those_of_predict(
    request, exports, tmp_path, format
):
    folder = request.getfixturevalue({"onnx": "float32", "ncnn": "of_ncnn"}[format])
    random = np.random.default_rng(5)
    paths = []
    for index, shape in enumerate([(32, 32, 3), (97, 211, 3), (20, 9, 3)]):
        smooth = np.cumsum(random.integers(-9, 10, shape), axis=1) + 128
        paths.append(tmp_path / f"picture {index}.png")
        Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(paths[-1])
    predictions = api.predict(exports(format).path, images=paths)
    for top, prediction in zip(linux_cpp.classify(folder, *paths), predictions, strict=True):
        assert len(top) == 5
        expected = dict(prediction.top)
        assert next(iter(top)) == next(iter(expected))
        # Pixels may differ by one, so the fifth class may be another.
        both = top.keys() & expected.keys()
        assert len(both) >= 4
        assert all(abs(top[label] - expected[label]) < 0.02 for label in both)


@pytest.mark.parametrize("kind", ["softmax", "one-sigmoid", "one-logit", "multi-label"])
def test_every_kind_of_output_has_parity_and_the_probabilities_of_predict(
    built, head_exports, tmp_path, kind
):
    path = head_exports(kind, "onnx").path
    folder = built("none", artifact=path)
    selftest = run(folder / "build/classify", "--selftest")
    assert selftest.returncode == 0, selftest.stdout + selftest.stderr
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8))
    image.save(tmp_path / "a.png")
    (shown,) = linux_cpp.classify(folder, tmp_path / "a.png")
    (prediction,) = api.predict(path, images=[tmp_path / "a.png"])
    assert shown == pytest.approx(dict(prediction.top), abs=1e-4)
    golden = folder / "build/golden.bin"
    content = golden.read_bytes()
    golden.write_bytes(content[:-4] + np.float32(7).tobytes())
    failed = run(folder / "build/classify", "--selftest")
    assert failed.returncode == 1
    assert "FAILED: SQNR in dB is" in failed.stdout


@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_channels_first_have_parity_and_the_probabilities_of_predict(built, tmp_path, io):
    path = tmp_path / "m.onnx"
    model = small(shape=(16, 24, 3))
    export_onnx(model, output=path, layout="nchw", io=io, parity_samples=64)
    folder = built("none", artifact=path)
    selftest = run(folder / "build/classify", "--selftest")
    assert selftest.returncode == 0, selftest.stdout + selftest.stderr
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (16, 24, 3), np.uint8))
    image.save(tmp_path / "a.png")
    (shown,) = linux_cpp.classify(folder, tmp_path / "a.png")
    (prediction,) = api.predict(path, images=[tmp_path / "a.png"])
    assert shown == pytest.approx(dict(prediction.top), abs=1e-4)


def test_a_file_of_the_bytes_of_the_input_is_not_preprocessed(float32, digit_images, tmp_path):
    pixels = digit_images[0][0]
    (tmp_path / "raw").write_bytes(pixels.tobytes())
    Image.fromarray(pixels).save(tmp_path / "same.ppm")
    process = run(float32 / "build/classify", tmp_path / "raw", tmp_path / "same.ppm")
    lines = process.stdout.splitlines()
    assert lines[1:6] == lines[7:12]


def test_no_name_of_a_picture_controls_a_terminal(float32, digit_images, tmp_path):
    path = tmp_path / f"Größe{FILE_NAME}.ppm"
    Image.fromarray(digit_images[0][0]).save(path, format="PPM")
    command = [float32 / "build/classify", path, tmp_path / f"none{FILE_NAME}.ppm"]
    process = subprocess.run(command, capture_output=True)
    assert process.returncode == 1
    assert "Größe" in process.stdout.decode()  # which is UTF-8 still
    assert len(process.stdout.splitlines()) == 6
    assert len(process.stderr.splitlines()) == 1
    assert not controls(process.stdout + process.stderr)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GIF89a", "not a binary PPM file"),
        (b"P6\n4 4\n255\nabc", "it is truncated"),
        (b"P6\n4 4\n65535\n", "it does not have 8 bits"),
        (b"P6\n4000000000 4000000000\n255\n", "declares an invalid size"),
        (b"P6\nx", "its header is invalid"),
        (b"P6 # a comment without an end", "its header is invalid"),
        (b"", "not a binary PPM file"),
    ],
)
def test_a_broken_picture_is_an_error_of_one_line(float32, tmp_path, content, reason):
    (tmp_path / "broken.ppm").write_bytes(content)
    process = run(float32 / "build/classify", tmp_path / "broken.ppm")
    assert process.returncode == 1
    assert process.stderr.startswith("classify: ")
    assert reason in process.stderr
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("bundle", "name"),
    [
        ("float32", "model.onnx"),
        ("of_ncnn", "model.ncnn.param"),
        ("of_ncnn", "model.ncnn.bin"),
    ],
)
def test_a_model_that_was_changed_after_the_build_classifies_nothing(
    request, tmp_path, bundle, name
):
    build = request.getfixturevalue(bundle) / "build"
    model = build / name
    content = model.read_bytes()
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    (tmp_path / "any.ppm").write_bytes(b"P6\n1 1\n255\nabc")
    try:
        model.write_bytes(changed)
        ended = [
            run(build / "classify", argument) for argument in ("--selftest", tmp_path / "any.ppm")
        ]
    finally:
        model.write_bytes(content)
    for process in ended:
        assert (process.returncode, process.stdout) == (1, "")
        expected = f"{name} has changed since this program was built: build it again"
        assert process.stderr == f"classify: {expected}\n"


def test_cmake_refuses_a_changed_model(built, engine_of):
    folder = built("none")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    process = linux_cpp.configure(folder, engine_of("onnx"))
    assert process.returncode != 0
    assert "model.onnx has another SHA-256" in process.stderr


def test_cmake_names_its_option_without_onnx_runtime(float32, tmp_path):
    if list(Path("/usr").glob("**/include/onnxruntime*/**/onnxruntime_c_api.h")):
        pytest.skip("ONNX Runtime is installed on this machine")
    process = run("cmake", "-B", tmp_path / "build", "-S", float32)
    assert process.returncode != 0
    assert "-DONNXRUNTIME_ROOT=FOLDER" in process.stderr


def test_cmake_names_its_option_without_ncnn(of_ncnn, tmp_path):
    if list(Path("/usr").glob("**/ncnnConfig.cmake")):
        pytest.skip("ncnn is installed on this machine")
    process = run("cmake", "-B", tmp_path / "build", "-S", of_ncnn)
    assert process.returncode != 0
    assert "-DNCNN_ROOT=FOLDER" in process.stderr
