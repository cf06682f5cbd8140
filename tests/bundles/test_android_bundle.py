"""What is in a bundle for Android; tests/system compiles its Kotlin and runs it."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from cct_export import api
from cct_export.bundles.contents import gather
from cct_export.bundles.targets import android
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.evaluation import parity
from cct_export.records import sidecar

NASTY = ['a "quoted" one', "$HOME ${x}", "back\\slash\\n", "grün 日本", "</string>", "'; DROP"]


@pytest.fixture(scope="module")
def module(exports, tmp_path_factory):
    """The bundle of a float32 file, as a folder."""
    return api.bundle(
        exports("tflite").path, target="android", output=tmp_path_factory.mktemp("a") / "small-cct"
    )


@pytest.fixture(scope="module")
def contents(exports):
    return gather(exports("tflite", "int8-full", "int8").path, "bundle")


def test_golden_json_holds_the_pixels_and_logits_of_the_sidecar(exports, module):
    golden = json.loads((module / "src/androidTest/assets/small_cct/golden.json").read_text())
    beside = sidecar.read(exports("tflite").path).golden
    images = [np.frombuffer(base64.b64decode(image), np.uint8) for image in golden["images"]]
    assert np.array_equal(np.reshape(images, golden["shape"]), beside.images)
    assert np.array_equal(np.array(golden["logits"], np.float32), beside.logits)


def test_the_assets_are_the_model_and_its_contract(exports, module):
    assets = module / "src/main/assets/small_cct"
    record = json.loads((assets / "model.json").read_text())
    model = (assets / record["model"]).read_bytes()
    policy = parity.policy_of("none", golden=True)
    assert model == exports("tflite").path.read_bytes()
    assert record["sha256"] == hashlib.sha256(model).hexdigest()
    assert record["input"]["shape"] == [1, 32, 32, 3]
    assert record["golden"]["sqnr_db"] == policy.sqnr_db
    assert (assets / "labels.txt").read_text().splitlines() == record["labels"]


def test_the_kotlin_reads_keys_that_model_json_has(module):
    record = json.loads((module / "src/main/assets/small_cct/model.json").read_text())
    kotlin = (module / "src/main/kotlin/cctexport/small_cct/Contract.kt").read_text()
    rooms = {"root": record} | {"bounds" if k == "golden" else k: v for k, v in record.items()}
    read = re.findall(r'\b(root|input|output|bounds)\.\w+\("(\w+)"', kotlin)
    assert len(read) >= 12
    for room, key in read:
        assert key in rooms[room], f"{room}.{key}"


def test_the_module_has_one_name_everywhere(module):
    gradle = (module / "build.gradle.kts").read_text()
    assert 'namespace = "cctexport.small_cct"' in gradle
    sources = list(module.rglob("*.kt"))
    assert len(sources) == 5
    for path in sources:
        assert path.read_text().startswith("package cctexport.small_cct\n")
        assert path.parent.relative_to(path.parents[2]).as_posix() == "cctexport/small_cct"
    for path in module.rglob("*"):
        assert path.is_dir() or b"BUNDLE_" not in path.read_bytes(), path


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
        ("Größe-日本", "model_groe"),
        ("日本", "model"),
        ("", "model"),
        ("..", "model"),
    ],
)
def test_any_name_of_a_bundle_becomes_a_harmless_word(name, word):
    assert android.identifier(name) == word
    assert re.fullmatch(r"[a-z][a-z0-9_]*", word)


def test_labels_are_data_and_no_source_holds_them(contents):
    record = contents.record | {"labels": NASTY}
    files = android.files(replace(contents, record=record))
    plain = android.files(contents)
    changed = {path for path in files if files[path] != plain[path]}
    assert changed == {
        "src/main/assets/model_bundle/model.json",
        "src/main/assets/model_bundle/labels.txt",
    }
    assert json.loads(files["src/main/assets/model_bundle/model.json"])["labels"] == NASTY


def test_an_onnx_file_is_refused_with_the_way_to_go(exports, tmp_path):
    with pytest.raises(InvalidRequest, match=r"not \.onnx: .*\n?.*cct-export tflite"):
        api.bundle(exports("onnx").path, target="android", output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_input_on_another_grid_is_refused(contents):
    with pytest.raises(InvalidArtifact, match="another way than pixel - 128"):
        android.files(replace(contents, inputs=contents.inputs // 2))


def test_an_input_of_a_type_that_the_class_lacks_is_refused(contents):
    with pytest.raises(InvalidRequest, match="this one is from int16"):
        android.files(replace(contents, inputs=contents.inputs.astype(np.int16)))
