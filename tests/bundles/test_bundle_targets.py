"""The files of each target; tests/system compiles and runs the Kotlin and the C++."""

import ast
import base64
import configparser
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from cct_export import api
from cct_export.bundles import android, raspberry_pi
from cct_export.bundles.contents import gather
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.evaluation import parity
from cct_export.records import sidecar
from cct_export.specs import SUFFIXES

NASTY = ['a "quoted" one', "$HOME ${x}", "back\\slash\\n", "grün 日本", "</string>", "{{ 7 * 7 }}"]
GOLDEN_BIN = struct.Struct("<8s6I3d")


@pytest.fixture(scope="module")
def module(exports, tmp_path_factory):
    """The Android bundle of a float32 file, as a folder."""
    output = tmp_path_factory.mktemp("android") / "small-cct"
    return api.bundle(exports("tflite").path, target="android", output=output)


@pytest.fixture(scope="module")
def contents(exports):
    """Contents of a bundle of integers only, which the test may replace."""
    return gather(exports("tflite", "int8-full", "int8").path, "bundle")


@pytest.fixture(scope="module")
def linux_cpp(exports, tmp_path_factory):
    """Returns the C++ bundle of an ``.onnx`` file in a scheme, and the file's sidecar."""

    def make(scheme="none", io="float32"):
        output = tmp_path_factory.mktemp("linux-cpp") / f"{scheme} {io}"
        artifact = exports("onnx", scheme, io).path
        return api.bundle(artifact, target="linux-cpp", output=output), sidecar.read(artifact)

    return make


def _with_description(contents, **fields):
    return replace(contents, description=replace(contents.description, **fields))


@pytest.mark.parametrize(
    ("target", "format", "other"),
    [
        ("android", "onnx", "tflite"),
        ("android", "ncnn", "tflite, or run this one in C"),
        ("linux-cpp", "tflite", "onnx"),
        ("microcontroller", "ncnn", "tflite"),
    ],
)
def test_a_format_that_a_target_does_not_take_is_refused_with_the_command(
    exports, tmp_path, target, format, other
):
    ending = re.escape(SUFFIXES[format])
    with pytest.raises(InvalidRequest, match=rf"not {ending}: .*cct-export {other}"):
        api.bundle(exports(format).path, target=target, output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_android_golden_inputs_are_those_of_the_sidecar(exports, module):
    golden = json.loads((module / "src/androidTest/assets/small_cct/golden.json").read_text())
    expected = sidecar.read(exports("tflite").path).golden
    images = [np.frombuffer(base64.b64decode(image), np.uint8) for image in golden["images"]]
    assert np.array_equal(np.reshape(images, golden["shape"]), expected.images)
    assert np.array_equal(np.array(golden["logits"], np.float32), expected.logits)


def test_the_android_assets_are_the_model_and_its_description(exports, module):
    assets = module / "src/main/assets/small_cct"
    description = json.loads((assets / "model.json").read_text())
    model = (assets / description["model"]).read_bytes()
    policy = parity.policy_of("none", golden=True)
    assert model == exports("tflite").path.read_bytes()
    assert description["sha256"] == hashlib.sha256(model).hexdigest()
    assert description["input"]["shape"] == [1, 32, 32, 3]
    assert description["golden"]["sqnr_db"] == policy.sqnr_db
    assert (assets / "labels.txt").read_text().splitlines() == description["labels"]


def test_the_kotlin_reads_keys_that_model_json_has(module):
    description = json.loads((module / "src/main/assets/small_cct/model.json").read_text())
    kotlin = (module / "src/main/kotlin/cctexport/small_cct/Contract.kt").read_text()
    objects = {"root": description, "bounds": description["golden"]} | description
    reads = re.findall(r'\b(root|input|output|bounds)\.\w+\("(\w+)"', kotlin)
    assert len(reads) >= 12
    for name, key in reads:
        assert key in objects[name], f"{name}.{key}"


def test_the_android_module_has_one_name_everywhere(module):
    gradle = (module / "build.gradle.kts").read_text()
    assert 'namespace = "cctexport.small_cct"' in gradle
    sources = list(module.rglob("*.kt"))
    assert len(sources) == 5
    for path in sources:
        assert path.read_text().startswith("package cctexport.small_cct\n")
        assert path.parent.relative_to(path.parents[2]).as_posix() == "cctexport/small_cct"


def test_the_manifest_is_xml_and_the_brackets_of_every_source_close(module):
    manifest = ET.parse(module / "src/main/AndroidManifest.xml").getroot()
    assert manifest.tag == "manifest"
    for path in [*module.rglob("*.kt"), *module.rglob("*.kts")]:
        code = re.sub(r'//.*|/\*.*?\*/|"[^"]*"', "", path.read_text(), flags=re.MULTILINE)
        for opening, closing in ("()", "[]", "{}"):
            assert code.count(opening) == code.count(closing), path.name


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("small-int8-android", "small_int8_android"),
        ("class", "model_class"),
        ("2 models", "model_2_models"),
        ('x"); System.exit(0) //', "x_system_exit_0"),
        ("$HOME\\${x}", "home_x"),
        ("{{ 7 * 7 }}", "model_7_7"),
        ("Größe-日本", "model_groe"),
        ("日本", "model"),
        ("", "model"),
        ("..", "model"),
    ],
)
def test_any_name_of_a_bundle_becomes_an_identifier(name, word):
    assert android.identifier(name) == word
    assert re.fullmatch(r"[a-z][a-z0-9_]*", word)


def test_labels_are_data_and_no_source_holds_them(contents):
    files = android.files(_with_description(contents, labels=tuple(NASTY)))
    plain = android.files(contents)
    changed = {path for path in files if files[path] != plain[path]}
    assert changed == {
        "src/main/assets/model_bundle/model.json",
        "src/main/assets/model_bundle/labels.txt",
    }
    assert json.loads(files["src/main/assets/model_bundle/model.json"])["labels"] == NASTY


def test_an_input_of_another_quantization_is_refused(contents):
    with pytest.raises(InvalidArtifact, match="not quantized as pixel - 128"):
        android.files(replace(contents, inputs=contents.inputs // 2))


def test_an_input_type_that_the_kotlin_class_lacks_is_refused(contents):
    with pytest.raises(InvalidRequest, match="this one takes int16"):
        android.files(replace(contents, inputs=contents.inputs.astype(np.int16)))


@pytest.mark.parametrize(("scheme", "io"), [("none", "float32"), ("int8", "uint8")])
def test_golden_bin_holds_the_images_logits_and_bounds_of_the_sidecar(linux_cpp, scheme, io):
    folder, expected = linux_cpp(scheme, io)
    content = (folder / "golden.bin").read_bytes()
    magic, count, height, width, channels, classes, flips, *bounds = GOLDEN_BIN.unpack_from(content)
    images = np.frombuffer(content, np.uint8, expected.golden.images.size, GOLDEN_BIN.size)
    logits = np.frombuffer(content, "<f4", offset=GOLDEN_BIN.size + images.size)
    policy = parity.policy_of(scheme, golden=True)
    assert magic == b"CCTGOLD1"
    assert (count, height, width, channels) == expected.golden.images.shape
    assert np.array_equal(images.reshape(expected.golden.images.shape), expected.golden.images)
    assert np.array_equal(logits.reshape(count, classes), expected.golden.logits)
    assert flips == policy.flips
    assert bounds[:2] == [policy.sqnr_db, policy.agreement]
    largest = max(1.0, float(np.abs(expected.golden.logits).max()))
    assert bounds[2] == pytest.approx((policy.max_abs or 0) * largest)
    readme = (folder / "README.md").read_text()
    assert f"scheme `{scheme}`" in readme
    assert f"32 × 32 pixels as {io}" in readme


def test_cmake_verifies_the_files_that_the_program_reads(linux_cpp):
    folder, _ = linux_cpp()
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {line.split("  ", 1)[1] for line in lines}
    assert {"model.onnx", "labels.txt", "golden.bin", "main.cpp", "README.md"} <= listed
    assert "set(DATA model.onnx labels.txt golden.bin)" in (folder / "CMakeLists.txt").read_text()


def test_the_service_watches_the_folder_that_the_readme_names(bundle_of):
    folder = bundle_of()
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(folder / "cct-watch.service")
    command = unit["Service"]["ExecStart"].split()
    assert command[0].startswith(unit["Service"]["WorkingDirectory"])
    assert (folder / command[1]).is_file()
    assert command[2:] == ["--watch", "%h/pictures"]
    readme = (folder / "README.md").read_text()
    assert "~/pictures" in readme
    assert ":classifier" in readme


def test_systemd_accepts_the_service(bundle_of, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    program = tmp_path / "classifier" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    process = subprocess.run(
        ["systemd-analyze", "verify", "--user", bundle_of() / "cct-watch.service"],
        env=os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0
    assert process.stderr == ""


@pytest.mark.parametrize(("format", "engine"), raspberry_pi.ENGINES.items())
def test_requirements_are_the_exact_versions_that_run_here(format, engine):
    if format == "ncnn":
        pytest.importorskip("ncnn", reason="ncnn is not installed: pip install 'cct-export[ncnn]'")
    lines = raspberry_pi.requirements(format).splitlines()
    versions = dict(line.split("==") for line in lines)
    assert {"numpy", "pillow", engine} <= versions.keys()
    assert not versions.keys() & {"tensorflow", "keras", "onnx", "cct-export"}
    assert all(metadata.version(name) == version for name, version in versions.items())


def test_the_readme_quotes_the_name_of_the_folder_and_names_every_file(bundle_of, kind):
    readme = (bundle_of(kind) / "README.md").read_text()
    assert "$" not in readme.replace('"$USER"', "")
    assert f"scp -r 'it'\"'\"'s {'-'.join(kind)}' pi@" in readme
    files = {path.name for path in bundle_of(kind).iterdir()} - {"README.md"}
    assert all(f"`{name}`" in readme for name in files)


def test_the_source_of_a_model_is_no_markup_in_the_readme(contents):
    source = "a `b`\n# {{ 7 * 7 }}\n![x](y)"
    files = raspberry_pi.files(_with_description(contents, source=source))
    assert "``a `b` # {{ 7 * 7 }} ![x](y)``" in files["README.md"].decode()


def test_the_scripts_import_only_what_the_requirements_install(bundle_of):
    allowed = {*sys.stdlib_module_names, "model", "numpy", "PIL", "ai_edge_litert", "onnxruntime"}
    allowed |= {"ncnn"}
    for path in bundle_of().glob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        imports = [node for node in nodes if isinstance(node, ast.Import)]
        modules = {alias.name for node in imports for alias in node.names}
        modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in modules} <= allowed


def test_model_json_describes_the_model(bundle_of, exports, kind):
    folder = bundle_of(kind)
    description = json.loads((folder / "model.json").read_text())
    content = (folder / description["model"]).read_bytes()
    assert content == exports(*kind).path.read_bytes()
    assert description["sha256"] == hashlib.sha256(content).hexdigest()
    assert (description["weights"] is not None) == (kind[0] == "ncnn")
    if description["weights"]:
        weights = exports(*kind).path.with_suffix(".bin")
        assert (folder / description["weights"]).read_bytes() == weights.read_bytes()
    assert description["input"]["dtype"] == kind[2]
    assert (description["format"], description["scheme"]) == kind[:2]
    assert description["labels"] == [str(digit) for digit in range(10)]
    assert (folder / "labels.txt").read_text().split() == description["labels"]
    assert list(description) == [
        "model", "weights", "format", "scheme", "source", "source_sha256", "sha256", "input",
        "versions", "output", "labels", "golden",
    ]  # fmt: skip
