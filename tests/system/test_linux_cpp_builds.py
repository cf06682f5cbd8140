"""The C++ bundle, compiled and run: the compiler and the engine are real.

Debian's package has the headers of ONNX Runtime's C API, and its Python wheel the library.
"""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import debian_archive
import numpy as np
import pytest
from PIL import Image

from cct_export import api

pytestmark = pytest.mark.cpp

RELEASE = "trixie"  # the first one with libonnxruntime-dev


@pytest.fixture(scope="module")
def onnxruntime(tmp_path_factory):
    """A folder with ``include`` and ``lib``, as the archives of ONNX Runtime have them."""
    for program in ("cmake", "g++"):
        if shutil.which(program) is None:
            pytest.skip(f"the bundle is compiled with {program}, and there is none")
    package = Path(importlib.util.find_spec("onnxruntime").origin).parent
    libraries = sorted(package.glob("capi/libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this wheel of onnxruntime has no library of its own")
    folder = tmp_path_factory.mktemp("onnxruntime")
    try:
        root = debian_archive.unpack_alone(folder, "libonnxruntime-dev", release=RELEASE)
    except debian_archive.Unavailable as error:
        pytest.skip(f"no headers of ONNX Runtime: {error}")
    made = folder / "onnxruntime"
    (made / "lib").mkdir(parents=True)
    (made / "include").symlink_to(root / "usr/include/onnxruntime")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (made / "lib" / name).symlink_to(libraries[0])
    return made


@pytest.fixture(scope="module")
def built(onnxruntime, exports, tmp_path_factory):
    """Returns a bundle of an export, compiled; its name has spaces and an apostrophe."""

    def build(scheme, io="float32"):
        folder = tmp_path_factory.mktemp("cpp") / f"it's {scheme} {io}"
        api.bundle(exports("onnx", scheme, io).path, target="linux-cpp", output=folder)
        _configured(folder, onnxruntime, check=True)
        done = _run("cmake", "--build", folder / "build")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
        return folder

    return build


@pytest.fixture(scope="module")
def float32(built):
    return built("none")


def _configured(folder, onnxruntime, check=False):
    done = _run("cmake", "-B", folder / "build", "-S", folder, f"-DONNXRUNTIME_ROOT={onnxruntime}")
    assert not check or done.returncode == 0, done.stderr
    return done


def _run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@pytest.mark.parametrize(("scheme", "io"), [("none", "float32"), ("int8", "uint8")])
def test_the_selftest_passes_and_measures(built, scheme, io):
    done = _run(built(scheme, io) / "build/classify", "--selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASSED"
    found = re.search(r"median ([\d.]+) ms, p90 ([\d.]+) ms, (\d+) runs", done.stdout)
    assert float(found[1]) <= float(found[2])
    assert int(found[3]) >= 100


def test_the_selftest_fails_where_the_logits_are_others(float32):
    golden = float32 / "build/golden.bin"
    content = golden.read_bytes()
    try:
        logits = np.frombuffer(content[-16 * 10 * 4 :], "<f4").copy()
        logits[::10] += 0.01 * np.abs(logits).max()
        golden.write_bytes(content[: -logits.nbytes] + logits.tobytes())
        done = _run(float32 / "build/classify", "--selftest")
        golden.write_bytes(content[:-4])
        short = _run(float32 / "build/classify", "--selftest")
    finally:
        golden.write_bytes(content)
    assert done.returncode == 1
    assert "FAILED: SQNR in dB is" in done.stdout
    assert "FAILED: the largest difference is" in done.stdout
    assert "latency" not in done.stdout
    assert short.returncode == 1
    assert "it is broken" in short.stderr


def test_the_selftest_fails_where_a_label_is_missing(float32):
    labels = float32 / "build/labels.txt"
    content = labels.read_text()
    try:
        labels.write_text(content.partition("\n")[2])
        done = _run(float32 / "build/classify", "--selftest")
    finally:
        labels.write_text(content)
    assert done.returncode == 1
    assert "FAILED: labels.txt has too many or few lines" in done.stdout


def test_pictures_of_any_size_get_the_classes_that_predict_gives(float32, exports, tmp_path):
    random = np.random.default_rng(5)
    paths = []
    for index, shape in enumerate([(32, 32, 3), (97, 211, 3), (20, 9, 3)]):
        smooth = np.cumsum(random.integers(-9, 10, shape), axis=1) + 128
        paths.append(tmp_path / f"picture {index}.png")
        Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(paths[-1])
        Image.open(paths[-1]).save(paths[-1].with_suffix(".ppm"))
    done = _run(float32 / "build/classify", *(path.with_suffix(".ppm") for path in paths))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    for index, prediction in enumerate(api.predict(exports("onnx").path, images=paths)):
        lines = (line.split(" %  ") for line in said[6 * index + 1 : 6 * index + 6])
        found = {label: float(share) / 100 for share, label in lines}
        wanted = dict(prediction.top)
        assert next(iter(found)) == next(iter(wanted))
        # A pixel may differ by one, and so the fifth class may be another.
        both = found.keys() & wanted.keys()
        assert len(both) >= 4
        assert all(abs(found[label] - wanted[label]) < 0.02 for label in both)


def test_a_file_of_the_bytes_of_the_input_is_taken_as_it_is(float32, digit_images, tmp_path):
    pixels = digit_images[0][0]
    (tmp_path / "raw").write_bytes(pixels.tobytes())
    Image.fromarray(pixels).save(tmp_path / "same.ppm")
    done = _run(float32 / "build/classify", tmp_path / "raw", tmp_path / "same.ppm")
    lines = done.stdout.splitlines()
    assert lines[1:6] == lines[7:12]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GIF89a", "no binary PPM file"),
        (b"P6\n4 4\n255\nabc", "it ends too early"),
        (b"P6\n4 4\n65535\n", "it has not 8 bits"),
        (b"P6\n4000000000 4000000000\n255\n", "not plausible"),
        (b"P6\nx", "its header is broken"),
        (b"P6 # a comment without an end", "its header is broken"),
        (b"", "no binary PPM file"),
    ],
)
def test_a_broken_picture_ends_with_a_line(float32, tmp_path, content, reason):
    (tmp_path / "broken.ppm").write_bytes(content)
    done = _run(float32 / "build/classify", tmp_path / "broken.ppm")
    assert done.returncode == 1
    assert done.stderr.startswith("classify: ")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_cmake_refuses_a_model_that_was_changed(built, onnxruntime):
    folder = built("none")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    done = _configured(folder, onnxruntime)
    assert done.returncode != 0
    assert "model.onnx is not the file that was bundled" in done.stderr


def test_cmake_says_what_to_do_without_onnx_runtime(float32, tmp_path):
    if list(Path("/usr").glob("**/include/onnxruntime*/**/onnxruntime_c_api.h")):
        pytest.skip("ONNX Runtime is installed on this machine")
    done = _run("cmake", "-B", tmp_path / "build", "-S", float32)
    assert done.returncode != 0
    assert "-DONNXRUNTIME_ROOT=FOLDER" in done.stderr
