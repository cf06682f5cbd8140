"""The bundle for microcontrollers, compiled for this machine and for Arm chips, and run here.

What needs no TensorFlow Lite Micro is compiled always. The environment variable ``TFLM_SOURCES``
names a checkout of it, with flatbuffers, gemmlowp and ruy where its Makefile downloads them; with
that the whole is built and run. ``TFLM_LIBRARY`` names the library built of it, which saves the
time that compiling it takes.
"""

import os
import re
import shutil
from contextlib import closing
from dataclasses import replace

import pytest
from debian_archive import Unavailable, unpack
from linux_cpp import run

from cct_export.bundles import folder, microcontroller
from cct_export.bundles.contents import gather
from cct_export.evaluation import parity
from cct_export.runtimes import tflm
from cct_export.runtimes.session import run as run_session

pytestmark = pytest.mark.cpp

NAME = "model_it_s_c"
LABELS = ['"', "back\\", "grün 日本", "??/", "%s\u202e"]
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fno-exceptions", "-fno-rtti")
ARM_PACKAGES = (
    "binutils-arm-none-eabi", "gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "libnewlib-dev",
    "libstdc++-arm-none-eabi-dev", "libstdc++-arm-none-eabi-newlib",
)  # fmt: skip
CHIPS = {
    "cortex-m0plus": ("-mcpu=cortex-m0plus", "-mthumb"),
    "cortex-m4": ("-mcpu=cortex-m4", "-mthumb"),
    "cortex-m55": ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
}
# Stands for the interpreter: the golden integers, moved by a number of steps in turns.
REPLAY = """
#include "NAME/golden.h"
namespace NAME {
static std::int8_t row[kClasses];
bool init() { return true; }
std::size_t arena_used() { return 0; }
const std::int8_t* classify(const std::int8_t* image) {
  const std::size_t index = static_cast<std::size_t>(image - kGoldenImages[0]) / kImageSize;
  for (std::size_t i = 0; i < kClasses; ++i) {
    const int moved = kGoldenIntegers[index][i] + ((index + i) % 2 ? STEPS : -STEPS);
    row[i] = static_cast<std::int8_t>(moved < -128 ? -128 : moved > 127 ? 127 : moved);
  }
  return row;
}
}
"""
DUMP = """
#include <cstdio>
#include "NAME.h"
#include "NAME/model_data.h"
int main() {
  std::fwrite(NAME::kModelData, 1, NAME::kModelDataSize, stdout);
  for (const char* label : NAME::kLabels) std::printf("%s%c", label, 0);
}
"""


@pytest.fixture(scope="module")
def bundled(head_exports, tmp_path_factory):
    """Returns the bundle of a kind of output, with its contents."""
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")

    def make(kind="logits", labels=None):
        contents = gather(head_exports(kind, "tflite", "int8-full", "int8").path, "it's C")
        if labels:
            description = replace(contents.description, labels=tuple(labels))
            contents = replace(contents, description=description)
        output = tmp_path_factory.mktemp("micro") / "it's C"
        folder.write(microcontroller.files(contents), output)
        return output, contents

    return make


def _compile(*arguments, compiler="g++", options=STRICT):
    process = run(compiler, *options, *arguments)
    assert process.returncode == 0, process.stderr


def _selftest(output, steps):
    """Returns the process of the self-test on integers that are moved by ``steps``."""
    replay = output / "replay.cc"
    replay.write_text(REPLAY.replace("NAME", NAME).replace("STEPS", str(steps)))
    sources = [output / "src" / NAME / f"{name}.cc" for name in ("golden", "labels", "selftest")]
    _compile(f"-I{output}/src", output / "main.cc", replay, *sources, "-o", output / "selftest")
    return run(output / "selftest")


def test_the_array_is_the_file_and_any_label_is_itself(bundled):
    output, contents = bundled(labels=LABELS)
    (output / "dump.cc").write_text(DUMP.replace("NAME", NAME))
    sources = [output / "src" / NAME / f"{name}.cc" for name in ("model_data", "labels")]
    _compile(f"-I{output}/src", output / "dump.cc", *sources, "-o", output / "dump")
    (output / "dump.txt").write_bytes(b"")
    run("sh", "-c", f'"{output}/dump" > "{output}/dump.txt"')
    expected = contents.model + "".join(f"{label}\0" for label in LABELS).encode()
    assert (output / "dump.txt").read_bytes() == expected


@pytest.mark.parametrize("kind", ["logits", "softmax", "one-sigmoid", "one-logit", "multi-label"])
def test_the_self_test_measures_parity_as_the_export_does(bundled, kind):
    output, contents = bundled(kind)
    process = _selftest(output, 0)
    assert process.returncode == 0, process.stdout
    lines = process.stdout.splitlines()
    assert len(lines) == len(contents.inputs) + 2
    described = contents.description.output
    with closing(tflm.open_session(contents.path)) as session:
        values = run_session(session, contents.golden.images)
    expected = parity.logits_sqnr_db(contents.golden.logits, values, outputs=[described])
    assert lines[-1].startswith("PASSED: SQNR ")
    assert float(re.search(r"SQNR ([\d.]+) dB", lines[-1])[1]) == pytest.approx(expected, abs=0.11)


@pytest.mark.parametrize("kind", ["logits", "one-logit", "multi-label"])
def test_the_self_test_fails_on_other_integers(bundled, kind):
    output, _ = bundled(kind)
    process = _selftest(output, 60)
    assert process.returncode == 1, process.stdout
    assert "integers differ from a PC by 60" in process.stdout
    assert process.stdout.splitlines()[-1].startswith("FAILED: SQNR ")


def test_the_arduino_sketch_compiles(bundled, tmp_path):
    output, _ = bundled()
    (tmp_path / "Arduino.h").write_text(
        "#include <cstdio>\n"
        "struct Port {\n"
        "  void begin(long) {}\n"
        "  void println(const char* line) { std::puts(line); }\n"
        "  explicit operator bool() const { return true; }\n"
        "};\n"
        "static Port Serial;\n"
    )
    sketch = output / "examples/selftest/selftest.ino"
    options = ("-fsyntax-only", "-include", tmp_path / "Arduino.h", f"-I{output}/src")
    _compile(*options, "-x", "c++", sketch)


@pytest.fixture(scope="session")
def arm_compiler(tmp_path_factory):
    """Debian's compiler for Arm chips without an operating system, fetched where there is none."""
    installed = shutil.which("arm-none-eabi-g++")
    if installed:
        return installed
    try:
        root = unpack(tmp_path_factory.mktemp("arm"), *ARM_PACKAGES)
    except Unavailable as error:
        pytest.skip(f"no compiler for Arm chips: {error}")
    # A script of the package makes this link when it is installed.
    (root / "usr/lib/arm-none-eabi/include").symlink_to(root / "usr/include/newlib")
    return root / "usr/bin/arm-none-eabi-g++"


@pytest.mark.parametrize("chip", CHIPS)
def test_what_needs_no_engine_compiles_for_arm_chips(bundled, arm_compiler, tmp_path, chip):
    output, _ = bundled(labels=LABELS)
    for path in [output / "main.cc", *(output / "src" / NAME).glob("*.cc")]:
        if path.name == "model.cc":
            continue
        options = (*STRICT, *CHIPS[chip])
        arguments = (f"-I{output}/src", "-c", path, "-o", tmp_path / f"{path.stem}.o")
        _compile(*arguments, compiler=arm_compiler, options=options)


def test_cmake_names_its_option_without_the_engine(bundled):
    output, _ = bundled()
    process = run("cmake", "-S", output, "-B", output / "build")
    assert process.returncode != 0
    assert "-DTFLM_SOURCES=FOLDER" in process.stderr


@pytest.mark.timeout(3600)
def test_the_whole_bundle_gives_the_integers_of_the_wheel(bundled):
    sources = os.environ.get("TFLM_SOURCES")
    if not sources:
        pytest.skip("TFLM_SOURCES names no checkout of TensorFlow Lite Micro")
    output, contents = bundled()
    build = output / "build"
    options = {
        "CMAKE_CXX_FLAGS": "-Werror=all",
        "TFLM_SOURCES": sources,
        "TFLM_LIBRARY": os.environ.get("TFLM_LIBRARY", ""),
    }
    definitions = (f"-D{name}={value}" for name, value in options.items())
    process = run("cmake", "-S", output, "-B", build, *definitions)
    assert process.returncode == 0, process.stderr
    process = run("cmake", "--build", build, "--parallel", "2")
    assert process.returncode == 0, process.stderr
    symbols = run("nm", "--undefined-only", "--demangle", build / f"lib{NAME}.a").stdout
    assert "tflite::MicroInterpreter::Invoke()" in symbols
    assert not re.search(r"operator new|malloc|__cxa_throw|typeinfo", symbols)
    process = run(build / "selftest")
    assert process.returncode == 0, process.stdout
    count = len(contents.inputs)
    assert f"{count} of {count} images equal those of a PC" in process.stdout
    assert process.stdout.splitlines()[-1].startswith("PASSED")
