"""The Kotlin of the Android bundle, compiled by kotlinc and run on a JVM.

JUnit and Android's JSON library are real. The rest of Android and LiteRT are stubs with the
signatures that the bundle uses (tests/bundles/android_stubs); LiteRT's returns the outputs that
LiteRT returned in Python. So everything is tested but Android and LiteRT's AAR.
"""

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import debian_archive
import jinja2
import numpy as np
import pytest
from debian_archive import Unavailable
from PIL import Image

from cct_export import api
from cct_export.bundles.contents import gather
from cct_export.data.decoding import decode
from cct_export.specs import Resize

pytestmark = pytest.mark.kotlin

COMPILER = "kotlin-compiler@2.4.20"
JARS = ("junit4.jar", "hamcrest.jar", "json-android.jar")
STUBS = Path(__file__).parents[1] / "bundles" / "android_stubs"
PROGRAM = STUBS / "Pictures.kt.j2"


class Kotlin(NamedTuple):
    """A compiler, and the libraries to compile and run with."""

    compiler: Path
    libraries: str

    def compile(self, sources, jar, *options):
        command = ["bash", self.compiler / "bin/kotlinc", *options, *sources, "-d", jar]
        return _run(*command, "-cp", self.libraries)


class Module(NamedTuple):
    """A compiled bundle, and a file with LiteRT's outputs for its golden inputs."""

    folder: Path
    package: str
    outputs: Path
    classpath: str

    def java(self, main, *arguments, gpu="none"):
        properties = {"module": self.folder, "outputs": self.outputs, "gpu": gpu}
        options = [f"-D{key}={value}" for key, value in properties.items()]
        return _run("java", *options, "-cp", self.classpath, main, *arguments)

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
            pytest.skip(f"compiling the Kotlin needs {program}")
    try:
        debian_archive.run("npm", "pack", "--silent", COMPILER, folder=folder)
        debian_archive.run("tar", "xzf", next(folder.glob("*.tgz")), folder=folder)
        packages = ("junit4", "libhamcrest-java", "libandroid-json-org-java")
        root = debian_archive.unpack(folder / "debian", *packages)
    except Unavailable as error:
        pytest.skip(f"no Kotlin compiler, or no JUnit: {error}")
    libraries = ":".join(str(root / "usr/share/java" / jar) for jar in JARS)
    stubs = folder / "stubs.jar"
    compilation = Kotlin(folder / "package", libraries).compile(STUBS.glob("*.kt"), stubs)
    assert compilation.returncode == 0, compilation.stderr
    return Kotlin(folder / "package", f"{stubs}:{libraries}")


@pytest.fixture(scope="module")
def module(kotlin, exports, tmp_path_factory):
    """Returns the bundle of an export, compiled without a warning."""

    def make(scheme="none", io="float32", artifact=None):
        artifact = artifact or exports("tflite", scheme, io).path
        parent = tmp_path_factory.mktemp("android")
        folder = api.bundle(artifact, target="android", output=parent / f'{scheme}-{io} "$x"')
        package = next((folder / "src/main/assets").iterdir()).name
        program = parent / PROGRAM.stem
        program.write_text(jinja2.Template(PROGRAM.read_text()).render(package=package))
        jar, outputs = parent / "module.jar", parent / "outputs.txt"
        compilation = kotlin.compile([*folder.rglob("*.kt"), program], jar, "-Werror")
        assert compilation.returncode == 0, compilation.stderr
        runtime = kotlin.compiler / "lib/kotlin-stdlib.jar"
        _write_outputs(outputs, gather(artifact, "outputs"))
        return Module(folder, package, outputs, f"{jar}:{runtime}:{kotlin.libraries}")

    return make


@pytest.fixture(scope="module")
def float32(module):
    return module()


def _write_outputs(path, contents, outputs=None):
    outputs = contents.outputs if outputs is None else outputs
    encoded = ((base64.b64encode(x.tobytes()).decode() for x in pair)
               for pair in zip(contents.inputs, outputs, strict=True))  # fmt: skip
    path.write_text("".join(f"{image} {output}\n" for image, output in encoded))


@pytest.mark.parametrize(
    ("scheme", "io"), [("none", "float32"), ("int8", "uint8"), ("int8-full", "int8")]
)
def test_the_instrumented_test_passes_with_the_outputs_of_litert(module, scheme, io):
    bundle = module(scheme, io)
    for gpu, accelerators in (("works", ["CPU", "GPU"]), ("none", ["CPU"])):
        process = bundle.test(gpu)
        assert process.returncode == 0, process.stdout
        assert "OK (3 tests)" in process.stdout
        lines = re.findall(r"GoldenTest: (\w+): SQNR ([\d.]+|Infinity) dB", process.stdout)
        assert sorted(name for name, _ in lines) == accelerators


def test_the_instrumented_test_fails_with_other_outputs(float32, exports):
    contents = gather(exports("tflite").path, "outputs")
    noise = np.random.default_rng(3).normal(size=contents.outputs.shape).astype(np.float32)
    original = float32.outputs.read_text()
    reports = {}
    try:
        for name, outputs in {
            "noisy": contents.outputs + noise * np.float32(1e-3),
            "NaN": contents.outputs * np.float32("nan"),
            "constant": np.zeros_like(contents.outputs),
            "shifted": contents.outputs + np.float32(0.01),
        }.items():
            _write_outputs(float32.outputs, contents, outputs)
            process = float32.test()
            assert process.returncode == 1, name
            assert "Failures: 1" in process.stdout, name
            reports[name] = process.stdout
    finally:
        float32.outputs.write_text(original)
    assert "is below 87.0 dB" in reports["noisy"]
    assert "NaN or infinity" in reports["NaN"]
    assert "one class for every image" in reports["constant"]
    # A softmax ignores a shift, so it is not noise, but in float32 every logit has a bound.
    assert "a logit differs by" in reports["shifted"]
    assert "is below 87.0 dB" not in reports["shifted"]


def test_the_instrumented_test_fails_with_another_model(float32):
    model = float32.folder / f"src/main/assets/{float32.package}/model.tflite"
    content = model.read_bytes()
    try:
        model.write_bytes(content + b"x")
        process = float32.test()
    finally:
        model.write_bytes(content)
    assert "theModelHasTheChecksumOfTheBundle" in process.stdout
    assert "Failures: 1" in process.stdout


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        ("works", "accelerator GPU, fallback reason null"),
        ("none", "accelerator CPU, fallback reason no GPU"),
        ("fails", "accelerator CPU, fallback reason run failed"),
    ],
)
def test_the_classifier_names_its_accelerator_and_frees_its_handles(float32, gpu, message):
    process = float32.java(f"cctexport.{float32.package}.PicturesKt", gpu=gpu)
    lines = process.stdout.splitlines()
    assert process.returncode == 0, process.stderr
    assert message in lines
    assert lines[0].startswith("W" if "CPU" in message else "I")
    assert "refused: an image is 3072 bytes, not 3: 32 × 32 pixels of 3 channels" in lines
    assert lines[-1] == "open handles 0"


def test_bitmaps_are_resized_as_by_pillow(float32, tmp_path):
    random = np.random.default_rng(7)
    shapes = [(32, 32), (331, 97), (9, 20), (64, 64)]
    paths = []
    for index, shape in enumerate(shapes):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(random.integers(0, 256, (*shape, 3), np.uint8)).save(paths[-1])
    process = float32.java(f"cctexport.{float32.package}.PicturesKt", *paths)
    assert process.returncode == 0, process.stderr
    for word, mode, size in (("pixels", "RGB", (32, 32)), ("grey", "L", (5, 7))):
        lines = re.findall(rf"^{word} (.*)$", process.stdout, re.MULTILINE)
        assert len(lines) == len(paths)
        for path, line in zip(paths, lines, strict=True):
            picture = Image.open(path).convert(mode).resize(size, Image.Resampling.BILINEAR)
            difference = np.asarray(picture, int).ravel() - np.array(line.split(","), int)
            limit = 0 if picture.size == Image.open(path).size else 1
            assert np.abs(difference).max() <= limit


def test_bitmaps_are_cropped_and_interpolated_as_by_predict(float32, tmp_path):
    random = np.random.default_rng(8)
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, shape in zip(paths, [(24, 40), (331, 97), (50, 200), (9, 20)], strict=True):
        Image.fromarray(random.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    process = float32.java(f"cctexport.{float32.package}.PicturesKt", *paths)
    lines = re.findall(r"^cropped (.*)$", process.stdout, re.MULTILINE)
    for path, line in zip(paths, lines, strict=True):
        expected, _ = decode(path, (24, 40, 3), Resize("bilinear", "crop"))
        assert np.abs(expected.ravel() - np.array(line.split(","), int)).max() <= 1


def test_a_golden_image_as_a_bitmap_has_the_classes_of_its_logits(float32, exports, tmp_path):
    contents = gather(exports("tflite").path, "outputs")
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, contents.golden.images, strict=False):
        Image.fromarray(image).save(path)
    process = float32.java(f"cctexport.{float32.package}.PicturesKt", *paths)
    scores = re.findall(r"^score (\S+) (.*)$", process.stdout, re.MULTILINE)
    assert len(scores) == 5 * len(paths)
    for index, logits in enumerate(contents.outputs[: len(paths)].astype(np.float64)):
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-expected)[:5]
        top = scores[5 * index : 5 * index + 5]
        for (probability, label), place in zip(top, order, strict=True):
            assert label == contents.description.labels[place]
            assert float(probability) == pytest.approx(expected[place], abs=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "one-sigmoid", "one-logit", "multi-label"])
def test_every_kind_of_output_has_parity_and_the_probabilities_of_predict(
    module, head_exports, tmp_path, kind
):
    artifact = head_exports(kind, "tflite").path
    bundle = module(artifact=artifact)
    assert bundle.test("works").returncode == 0
    contents = gather(artifact, "outputs")
    path = tmp_path / "golden.png"
    Image.fromarray(contents.golden.images[3]).save(path)
    process = bundle.java(f"cctexport.{bundle.package}.PicturesKt", path)
    scores = re.findall(r"^score (\S+) (.*)$", process.stdout, re.MULTILINE)
    (prediction,) = api.predict(artifact, images=[path])
    shown = {label: float(probability) for probability, label in scores}
    assert shown == pytest.approx(dict(prediction.top), abs=1e-6)
    _write_outputs(bundle.outputs, contents, contents.outputs[:, ::-1] + np.float32(0.01))
    assert bundle.test().returncode == 1
