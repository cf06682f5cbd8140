"""The Kotlin of the Android bundle, compiled by kotlinc and run on a JVM.

JUnit and the JSON library of Android are real. Of Android and LiteRT there are stand-ins with the
signatures that the bundle uses (tests/bundles/android_stubs); the stand-in for LiteRT answers what
LiteRT answered here in Python. So what is proven is everything but Android and LiteRT's AAR.
"""

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import debian_archive
import numpy as np
import pytest
from debian_archive import Unavailable
from PIL import Image

from cct_export import api
from cct_export.bundles.contents import gather

pytestmark = pytest.mark.kotlin

COMPILER = "kotlin-compiler@2.4.20"
JARS = ("junit4.jar", "hamcrest.jar", "json-android.jar")
STUBS = Path(__file__).parents[1] / "bundles" / "android_stubs"
PROGRAM = "Pictures.kt"


class Kotlin(NamedTuple):
    """A compiler, and the libraries to compile and run with."""

    compiler: Path
    libraries: str

    def compile(self, sources, made, *options):
        command = ["bash", self.compiler / "bin/kotlinc", *options, *sources, "-d", made]
        return _run(*command, "-cp", self.libraries)


class Module(NamedTuple):
    """A bundle, compiled, with what LiteRT answers to its golden images."""

    folder: Path
    package: str
    answers: Path
    classes: str

    def java(self, main, *arguments, gpu="none"):
        settings = {"module": self.folder, "answers": self.answers, "gpu": gpu}
        options = [f"-D{key}={value}" for key, value in settings.items()]
        return _run("java", *options, "-cp", self.classes, main, *arguments)

    def test(self, gpu="none"):
        return self.java(
            "org.junit.runner.JUnitCore", f"cctexport.{self.package}.GoldenTest", gpu=gpu
        )


def _run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kotlin")
    for program in ("java", "npm", "tar"):
        if shutil.which(program) is None:
            pytest.skip(f"the Kotlin is compiled with the help of {program}, and there is none")
    try:
        debian_archive.run("npm", "pack", "--silent", COMPILER, folder=folder)
        debian_archive.run("tar", "xzf", next(folder.glob("*.tgz")), folder=folder)
        packages = ("junit4", "libhamcrest-java", "libandroid-json-org-java")
        root = debian_archive.unpack(folder / "debian", *packages)
    except Unavailable as error:
        pytest.skip(f"no Kotlin compiler, or no JUnit: {error}")
    libraries = ":".join(str(root / "usr/share/java" / jar) for jar in JARS)
    stubs = folder / "stubs.jar"
    sources = [path for path in STUBS.glob("*.kt") if path.name != PROGRAM]
    done = Kotlin(folder / "package", libraries).compile(sources, stubs)
    assert done.returncode == 0, done.stderr
    return Kotlin(folder / "package", f"{stubs}:{libraries}")


@pytest.fixture(scope="module")
def module(kotlin, exports, tmp_path_factory):
    """Returns the bundle of an export, compiled without a warning."""

    def make(scheme="none", io="float32"):
        artifact = exports("tflite", scheme, io).path
        parent = tmp_path_factory.mktemp("android")
        folder = api.bundle(artifact, target="android", output=parent / f'{scheme}-{io} "$x"')
        package = next((folder / "src/main/assets").iterdir()).name
        program = parent / PROGRAM
        program.write_text((STUBS / PROGRAM).read_text().replace("BUNDLE_NAME", package))
        made = parent / "module.jar"
        done = kotlin.compile([*folder.rglob("*.kt"), program], made, "-Werror")
        assert done.returncode == 0, done.stderr
        runtime = kotlin.compiler / "lib/kotlin-stdlib.jar"
        answers = parent / "answers.txt"
        _write(answers, gather(artifact, "answers"))
        return Module(folder, package, answers, f"{made}:{runtime}:{kotlin.libraries}")

    return make


@pytest.fixture(scope="module")
def float32(module):
    return module()


def _write(path, contents, outputs=None):
    outputs = contents.outputs if outputs is None else outputs
    encoded = ((base64.b64encode(x.tobytes()).decode() for x in pair)
               for pair in zip(contents.inputs, outputs, strict=True))  # fmt: skip
    path.write_text("".join(f"{image} {answer}\n" for image, answer in encoded))


@pytest.mark.parametrize(
    ("scheme", "io"), [("none", "float32"), ("int8", "uint8"), ("int8-full", "int8")]
)
def test_the_instrumented_test_passes_on_what_litert_answers(module, scheme, io):
    made = module(scheme, io)
    for gpu in ("there", "none"):
        done = made.test(gpu)
        assert done.returncode == 0, done.stdout
        assert "OK (3 tests)" in done.stdout
        ran = re.findall(r"GoldenTest: (\w+): SQNR ([\d.]+|Infinity) dB", done.stdout)
        assert sorted(name for name, _ in ran) == (["CPU", "GPU"] if gpu == "there" else ["CPU"])


def test_the_instrumented_test_fails_where_the_answers_are_others(float32, exports):
    contents = gather(exports("tflite").path, "answers")
    noise = np.random.default_rng(3).normal(size=contents.outputs.shape).astype(np.float32)
    kept = float32.answers.read_text()
    said = {}
    try:
        for name, outputs in {
            "a little": contents.outputs + noise * np.float32(1e-3),
            "NaN": contents.outputs * np.float32("nan"),
            "one class": np.zeros_like(contents.outputs),
            "shifted": contents.outputs + np.float32(0.01),
        }.items():
            _write(float32.answers, contents, outputs)
            done = float32.test()
            assert done.returncode == 1, name
            assert "Failures: 1" in done.stdout, name
            said[name] = done.stdout
    finally:
        float32.answers.write_text(kept)
    assert "dB, less than 87.0" in said["a little"]
    assert "NaN or infinity" in said["NaN"]
    assert "one class for every image" in said["one class"]
    # What a softmax does not see is no noise, but in float32 every logit has a bound.
    assert "a logit differs by" in said["shifted"]
    assert "less than 87.0" not in said["shifted"]


def test_the_instrumented_test_fails_where_the_model_is_another(float32):
    model = float32.folder / f"src/main/assets/{float32.package}/model.tflite"
    content = model.read_bytes()
    try:
        model.write_bytes(content + b"x")
        done = float32.test()
    finally:
        model.write_bytes(content)
    assert "theModelIsTheOneThatWasBundled" in done.stdout
    assert "Failures: 1" in done.stdout


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ("there", "accelerator GPU, refusal null"),
        ("none", "accelerator CPU, refusal no GPU here"),
        ("breaks", "accelerator CPU, refusal it broke"),
    ],
)
def test_it_says_what_runs_the_model_and_frees_all_of_it(float32, gpu, said):
    done = float32.java(f"cctexport.{float32.package}.PicturesKt", gpu=gpu)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert said in lines
    assert lines[0].startswith("W" if "CPU" in said else "I")
    assert "refused: an image is 3072 bytes, not 3: 32 × 32 pixels of 3 channels" in lines
    assert lines[-1] == "open handles 0"


def test_bitmaps_of_any_size_become_the_pixels_that_pillow_makes(float32, tmp_path):
    random = np.random.default_rng(7)
    shapes = [(32, 32), (331, 97), (9, 20), (64, 64)]
    paths = []
    for index, shape in enumerate(shapes):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(random.integers(0, 256, (*shape, 3), np.uint8)).save(paths[-1])
    done = float32.java(f"cctexport.{float32.package}.PicturesKt", *paths)
    assert done.returncode == 0, done.stderr
    for word, mode, size in (("pixels", "RGB", (32, 32)), ("grey", "L", (5, 7))):
        found = re.findall(rf"^{word} (.*)$", done.stdout, re.MULTILINE)
        assert len(found) == len(paths)
        for path, line in zip(paths, found, strict=True):
            picture = Image.open(path).convert(mode).resize(size, Image.Resampling.BILINEAR)
            off = np.asarray(picture, int).ravel() - np.array(line.split(","), int)
            assert np.abs(off).max() <= (0 if picture.size == Image.open(path).size else 1)


def test_a_golden_image_as_a_bitmap_gets_the_classes_of_its_logits(float32, exports, tmp_path):
    contents = gather(exports("tflite").path, "answers")
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, contents.golden.images, strict=False):
        Image.fromarray(image).save(path)
    done = float32.java(f"cctexport.{float32.package}.PicturesKt", *paths)
    found = re.findall(r"^score (\S+) (.*)$", done.stdout, re.MULTILINE)
    assert len(found) == 5 * len(paths)
    for index, logits in enumerate(contents.outputs[: len(paths)].astype(np.float64)):
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-shares)[:5]
        for (share, label), place in zip(found[5 * index : 5 * index + 5], order, strict=True):
            assert label == contents.labels[place]
            assert float(share) == pytest.approx(shares[place], abs=1e-6)
