"""The files of the bundle for microcontrollers; tests/system compiles and runs them."""

import json
import re
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from cct_export import api
from cct_export.bundles import android, microcontroller
from cct_export.bundles.contents import gather
from cct_export.errors import InvalidArtifact, InvalidRequest, MissingDependency
from cct_export.formats.tflite_micro import operator_uses
from cct_export.runtimes import tflm

NASTY = ['a "quoted" one', "back\\slash\\", "grün 日本", "??/ */ //", "%s{{ 7 * 7 }}"]
FULL = ("tflite", "int8-full", "int8")


@pytest.fixture(scope="module")
def wheel():
    return pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")


@pytest.fixture(scope="module")
def contents(head_exports):
    """Contents of a bundle of integers only, with five classes."""
    return gather(head_exports("logits", *FULL).path, "it's 5-classes")


@pytest.fixture(scope="module")
def session(wheel, contents):
    """The engine with the file of the bundle."""
    with closing(tflm.open_session(contents.path)) as session:
        yield session


@pytest.fixture(scope="module")
def files(wheel, contents):
    """The files of a bundle as text, the model aside."""
    made = microcontroller.files(contents)
    return {path: data.decode() for path, data in made.items() if path != "model.tflite"}


def _integers(text, name):
    body = re.search(rf"{name}[^=;]*= \{{(.*?)\n\}};", text, re.DOTALL)[1]
    return [int(number) for number in re.findall(r"-?\d+", body)]


def test_the_arrays_are_the_model_and_the_golden_images(files, contents, session):
    folder = "src/model_it_s_5_classes"
    model = _integers(files[f"{folder}/model_data.cc"], "kModelData")
    assert bytes(model) == contents.model
    assert f"kModelDataSize = {len(contents.model)};" in files[f"{folder}/model_data.h"]
    assert "alignas(16) const unsigned char" in files[f"{folder}/model_data.cc"]
    images = _integers(files[f"{folder}/golden.cc"], "kGoldenImages")
    assert images == contents.inputs.ravel().tolist()
    integers = _integers(files[f"{folder}/golden.cc"], "kGoldenIntegers")
    outputs = [session.invoke(image[None]).copy() for image in contents.inputs]
    assert integers == np.ravel(outputs).tolist()


def test_the_resolver_has_the_operators_of_the_file_and_room_for_no_more(files, contents):
    source = files["src/model_it_s_5_classes/model.cc"]
    added = re.findall(r"resolver\.(Add\w+)\(\)", source)
    assert {"AddConv2D", "AddMaxPool2D", "AddFullyConnected"} <= set(added)
    assert len(added) == len(set(added)) == len({use.kind for use in operator_uses(contents.model)})
    assert f"MicroMutableOpResolver<{len(added)}>" in source


def test_the_arena_is_what_was_measured_and_a_margin(files, session):
    size = int(re.search(r"kArenaSize = (\d+);", files["src/model_it_s_5_classes.h"])[1])
    assert 1.05 * session.arena_bytes <= size < 1.05 * session.arena_bytes + 1024
    assert size % 1024 == 0
    assert f"{session.arena_bytes:,} bytes" in files["README.md"]
    assert f"{size:,}" in files["README.md"]


def test_the_readme_names_every_file(files):
    readme = files["README.md"]
    named = set(re.findall(r"`([^`\n ]+)`", readme))
    names = {path.removeprefix("src/model_it_s_5_classes/") for path in files} - {"README.md"}
    for name in names:
        either = {name, f"{name.rpartition('.')[0]}.*"}
        assert named & (either | {f"src/model_it_s_5_classes/{one}" for one in either}), name


def test_labels_are_string_literals_and_only_there(wheel, contents):
    description = replace(contents.description, labels=tuple(NASTY))
    changed = microcontroller.files(replace(contents, description=description))
    plain = microcontroller.files(contents)
    assert {path for path in plain if plain[path] != changed[path]} == {
        "labels.txt", "model.json", "src/model_it_s_5_classes/labels.cc",
    }  # fmt: skip
    labels = changed["src/model_it_s_5_classes/labels.cc"].decode()
    assert labels.isascii()
    assert r'"a \042quoted\042 one"' in labels
    assert r"\077\077/ */ //" in labels  # no trigraph: it would end in a backslash


def test_a_bundle_is_made_by_the_command(wheel, in_process, head_exports, tmp_path):
    path, output = head_exports("softmax", *FULL).path, tmp_path / "class"
    arguments = (path, "--target", "microcontroller", "-o", output, "--json", "-")
    ended = in_process("export", "bundle", *arguments)
    assert ended.code == 0, ended.err
    assert "src/model_class.h" in json.loads(ended.out)["bundle"]["files"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (("onnx", "int8", "uint8"), r"not \.onnx: .*--quantize int8-full --io int8"),
        (("tflite", "none", "float32"), "this one is none with float32 images and float32 logits"),
        (("tflite", "int8", "uint8"), "this one is int8 with uint8 images .*--target tflm"),
    ],
)
def test_other_files_are_refused_with_the_command(exports, tmp_path, kind, message):
    with pytest.raises(InvalidRequest, match=message) as refused:
        api.bundle(exports(*kind).path, target="microcontroller", output=tmp_path / "bundle")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "bundle").exists()


def test_operators_that_the_engine_has_not_are_named(exports, tmp_path):
    message = r"no EXP \(int8\), GELU \(int8\): .*--target tflm"
    with pytest.raises(InvalidRequest, match=message) as refused:
        api.bundle(exports(*FULL).path, target="microcontroller", output=tmp_path / "bundle")
    assert "\n" not in str(refused.value)


def test_several_outputs_are_refused(head_exports, tmp_path):
    path = head_exports("several", "tflite").path
    with pytest.raises(InvalidRequest, match="one output without slots"):
        api.bundle(path, target="microcontroller", output=tmp_path / "bundle")


def test_an_input_of_another_quantization_is_refused(contents):
    for target in (microcontroller, android):
        with pytest.raises(InvalidArtifact, match="not quantized as pixel - 128"):
            target.files(replace(contents, inputs=contents.inputs // 2))


def test_golden_logits_of_another_model_are_refused(wheel, contents):
    golden = replace(contents.golden, logits=-contents.golden.logits)
    with pytest.raises(InvalidArtifact, match=r"on TensorFlow Lite Micro: .*SQNR"):
        microcontroller.files(replace(contents, golden=golden))


def test_without_the_engine_the_package_is_named(contents, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(MissingDependency, match=r"pip install 'cct-export\[tflm\]'"):
        microcontroller.files(contents)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("ADD", "AddAdd"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("CONV_2D", "AddConv2D"),
        ("L2_NORMALIZATION", "AddL2Normalization"),
        ("PADV2", "AddPadV2"),
        ("SPACE_TO_BATCH_ND", "AddSpaceToBatchNd"),
    ],
)
def test_methods_of_the_resolver_are_named_as_in_its_header(kind, method):
    assert microcontroller.resolver_method(kind) == method
