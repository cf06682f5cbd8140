"""The file beside an artifact: what was written is what is read, or nothing is."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cct_export.files import sha256
from cct_export.records import Artifact, Contract, InputContract, OutputContract, sidecar
from cct_export.specs import DEFAULT_RESIZE


def _artifact(path):
    contract = Contract(
        format="tflite",
        scheme="none",
        io="float32",
        source="m.keras",
        source_sha256="0" * 64,
        image_shape=(2, 3, 1),
        labels=("cat", "ü"),
        versions={"numpy": "2"},
        input=InputContract.of("float32", 1, (2, 3, 1), DEFAULT_RESIZE),
        output=OutputContract("logits", "float32", 2),
    )
    return Artifact(path, contract, path.stat().st_size, sha256(path))


@pytest.fixture
def written(tmp_path):
    """An artifact with its sidecar."""
    path = tmp_path / "m.tflite"
    path.write_bytes(b"content")
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)
    sidecar.write(_artifact(path), sidecar.Golden(images, np.eye(4, 2, dtype=np.float32), "here"))
    return path


@given(
    images=arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3, st.sampled_from([1, 3]))),
    classes=st.integers(1, 4),
    data=st.data(),
)
def test_golden_images_and_logits_come_back_bit_for_bit(images, classes, data):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    logits = data.draw(arrays.arrays(np.float32, (len(images), classes), elements=finite))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")
        path.write_bytes(b"content")
        sidecar.write(_artifact(path), sidecar.Golden(images, logits, "here"))
        back = sidecar.read(path)
    np.testing.assert_array_equal(back.golden.images, images)
    np.testing.assert_array_equal(back.golden.logits, logits)
    assert back.golden.logits.dtype == np.float32
    assert back.golden.origin == "here"


def test_the_record_has_the_contract_and_no_folder_of_this_machine(written):
    assert sidecar.read(written).artifact == _artifact(written)
    record = json.loads(sidecar.path_of(written).read_text())
    assert record["path"] == "m.tflite"
    assert record["input"]["shape"] == [1, 2, 3, 1]
    assert record["input"]["channels"] == "grey"
    assert str(written.parent) not in sidecar.path_of(written).read_text()


def test_a_sidecar_lies_beside_its_artifact():
    assert sidecar.path_of(Path("a/m.v2.onnx")) == Path("a/m.v2.onnx.json")


def test_the_sidecar_of_another_file_is_none(written):
    assert sidecar.read(written) is not None
    written.write_bytes(b"contents")
    assert sidecar.read(written) is None


def test_an_artifact_without_a_sidecar_has_none(written):
    sidecar.path_of(written).unlink()
    assert sidecar.read(written) is None


def _drop(key):
    def change(record):
        del record[key]

    return change


def _golden(**changes):
    return lambda record: record["golden"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        _drop("sha256"),
        _drop("golden"),
        _golden(shape=[4, 2, 3, 3]),
        _golden(images_zlib_base64="!"),
        _golden(images_zlib_base64="AAAA"),
        _golden(logits="many"),
        _golden(logits=[[1, 2], [3]]),
        lambda record: record.update(golden=None),
    ],
)
def test_a_sidecar_with_a_damaged_field_is_none(written, change):
    file = sidecar.path_of(written)
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    assert sidecar.read(written) is None


@pytest.mark.parametrize("text", ["", "{", '{"sha256": NaN}', "[]", "null", "3", '"text"', "\x00"])
def test_a_sidecar_that_is_no_record_is_none(written, text):
    sidecar.path_of(written).write_text(text)
    assert sidecar.read(written) is None


def test_a_truncated_or_binary_sidecar_is_none(written):
    file = sidecar.path_of(written)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"\xff\xfe" + whole):
        file.write_bytes(content)
        assert sidecar.read(written) is None
