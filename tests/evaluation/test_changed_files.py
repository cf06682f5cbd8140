"""A file that is not the one its contract and sidecar describe is noticed by whatever reads it."""

import hashlib
import itertools
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from cct_export import api
from cct_export.errors import CCTExportError, InvalidArtifact
from cct_export.quantize.schemes import BY_FORMAT
from cct_export.records import checksum, sidecar

FORMATS = ("tflite", "onnx")
CHANGES = st.lists(
    st.tuples(st.integers(0, 2**32), st.integers(1, 255)), min_size=1, max_size=8
)  # positions modulo the size of the file, and what is added to the byte there


@pytest.fixture(scope="module")
def image(tmp_path_factory, digit_images):
    """A PNG file of a digit."""
    path = tmp_path_factory.mktemp("image") / "digit.png"
    Image.fromarray(digit_images[0][0]).save(path)
    return path


@pytest.fixture
def copied(tmp_path, exports):
    """Copies an export to where it may be changed, by default with its sidecar."""

    def copy(format, scheme="none", beside=True):
        original = exports(format, scheme).path
        path = tmp_path / f"m.{format}"
        shutil.copyfile(original, path)
        sidecar.path_of(path).unlink(missing_ok=True)
        if beside:
            shutil.copyfile(sidecar.path_of(original), sidecar.path_of(path))
        return path

    return copy


def with_byte_added(path, position, amount=1):
    """Changes a byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] = (content[position] + amount) % 256
    path.write_bytes(content)


def with_other_weights(path):
    """Changes the middle of a file, which holds weights."""
    with_byte_added(path, path.stat().st_size // 2, 64)


def with_contract(path, **fields):
    """Changes fields of the contract in a file, None to leave one out, and writes the file anew."""
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(path)
        (entry,) = model.metadata_props
        entry.value = _edited(entry.value, fields)
        onnx.save(model, path)
        return
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    buffer = model.buffers[next(m for m in model.metadata if m.name == b"cct_export.json").buffer]
    buffer.data = np.frombuffer(_edited(bytes(buffer.data), fields).encode(), np.uint8)
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _edited(text, fields):
    contract = json.loads(text) | fields
    return json.dumps({key: contract[key] for key in contract if fields.get(key, "") is not None})


@pytest.mark.parametrize("beside", [True, False], ids=["with-sidecar", "alone"])
@pytest.mark.parametrize("format", FORMATS)
def test_predict_refuses_a_file_with_other_bytes(in_process, copied, image, format, beside):
    path = copied(format, beside=beside)
    with_other_weights(path)
    ended = in_process("export", "predict", path, image)
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert f"{path}: the file has changed since it was exported" in line
    assert "export it again" in line
    assert "--allow-changed" in line


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_was_changed_on_purpose_is_run_with_a_warning(
    in_process, copied, image, format
):
    path = copied(format)
    with_contract(path, labels=None)  # as a tool that keeps the metadata would rewrite it
    ended = in_process("export", "predict", path, image, "--allow-changed", "--top", 1)
    assert ended.code == 0
    (line,) = ended.err.splitlines()
    assert "has changed since it was exported" in line
    assert "digit.png" in ended.out


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("beside", [True, False], ids=["with-sidecar", "alone"])
@pytest.mark.parametrize("format", FORMATS)
@given(changes=CHANGES)
def test_no_changed_bytes_give_other_predictions(copied, image, format, beside, changes):
    path = copied(format, beside=beside)
    content = path.read_bytes()
    changed = bytearray(content)
    for position, amount in changes:
        index = position % len(changed)
        changed[index] = (changed[index] + amount) % 256
    assume(changed != content)
    path.write_bytes(changed)
    try:
        predictions = api.predict(path, images=image)
    except CCTExportError:
        return
    path.write_bytes(content)
    assert predictions == api.predict(path, images=image)


@pytest.mark.parametrize("field", ["content_sha256", "labels", "format"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_whose_contract_lost_a_field_is_refused(copied, image, format, field):
    path = copied(format)
    with_contract(path, **{field: None})
    with pytest.raises(InvalidArtifact, match="has changed since it was exported"):
        api.predict(path, images=image)


@pytest.mark.parametrize("beside", [True, False], ids=["with-sidecar", "alone"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_whose_checksum_is_spelled_otherwise_is_refused(copied, image, format, beside):
    path = copied(format, beside=beside)
    # The same JSON in as many bytes, which both formats count.
    content = path.read_bytes().replace(b'"content_sha256": "', b'"content_sha256" :"')
    path.write_bytes(content)
    assert checksum.carried(content) == ""
    with pytest.raises(InvalidArtifact, match="has changed since it was exported"):
        api.predict(path, images=image)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_an_earlier_version_works_as_long_as_its_sidecar_agrees(
    copied, image, format, caplog
):
    path = copied(format)
    expected = api.predict(path, images=image)
    with_contract(path, content_sha256=None)
    sidecar.path_of(path).unlink()
    assert api.predict(path, images=image) == expected
    record = json.loads(sidecar.path_of(copied(format)).read_text())
    del record["content_sha256"]
    with_contract(path, content_sha256=None)
    record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar.path_of(path).write_text(json.dumps(record))
    assert api.predict(path, images=image) == expected
    assert not caplog.records
    with_byte_added(path, path.stat().st_size // 2, 64)
    with pytest.raises(InvalidArtifact, match="has changed since it was exported"):
        api.predict(path, images=image)


PAIRS = [
    (format, old, new)
    for format in FORMATS
    for old, new in itertools.permutations(BY_FORMAT[format], 2)
]


def _exported(exports, format, scheme):
    int8 = (format, scheme) == ("tflite", "int8-full")
    return exports(format, scheme, "int8" if int8 else "float32").path


@pytest.mark.parametrize(("format", "old", "new"), PAIRS)
def test_an_old_file_beside_the_sidecar_of_a_newer_export_has_none(
    exports, tmp_path, format, old, new
):
    path = tmp_path / f"m.{format}"  # as after a kill between the two renames
    shutil.copyfile(_exported(exports, format, old), path)
    shutil.copyfile(sidecar.path_of(_exported(exports, format, new)), sidecar.path_of(path))
    from cct_export.evaluation import golden
    from cct_export.runtimes import engine_of
    from cct_export.specs import DEFAULT_DELEGATION

    session = engine_of(format).open_session(path, trusted=True)
    checked = golden.check(session, path=path, delegation=DEFAULT_DELEGATION)
    assert checked == golden.GoldenCheck(unknown=f"m.{format}.json is not of this file")


@pytest.mark.parametrize("format", FORMATS)
def test_an_intact_file_beside_another_sidecar_is_classified_with_a_warning(
    in_process, copied, exports, image, format
):
    path = copied(format)
    expected = in_process("export", "predict", path, image).out
    for content in (
        sidecar.path_of(exports(format, "int8").path).read_bytes(), b"", b"\xff\x00", b'{"a": 1}',
    ):  # fmt: skip
        sidecar.path_of(path).write_bytes(content)
        ended = in_process("export", "predict", path, image)
        assert (ended.code, ended.out) == (0, expected)
        (line,) = ended.err.splitlines()
        assert f"m.{format}.json is not of this file" in line


def test_a_sidecar_that_is_missing_or_a_folder_changes_no_prediction(in_process, copied, image):
    path = copied("onnx", beside=False)
    expected = in_process("export", "predict", path, image)
    assert (expected.code, expected.err) == (0, "")
    sidecar.path_of(path).mkdir()
    ended = in_process("export", "predict", path, image)
    assert (ended.code, ended.out) == (0, expected.out)


@pytest.mark.parametrize("format", FORMATS)
def test_verify_and_inspect_say_that_a_file_has_changed(in_process, copied, digits_run, format):
    path = copied(format)
    with_contract(path, calibration="others")
    for arguments in (("verify", path, "--samples", 8), ("inspect", path)):
        ended = in_process("export", *arguments)
        assert ended.code == 0, ended.err
        assert "has changed since it was exported" in ended.out + ended.err


@pytest.mark.parametrize("format", FORMATS)
def test_bundle_refuses_a_file_that_has_changed(in_process, copied, tmp_path, format):
    path = copied(format)
    with_contract(path, calibration="others")
    target = {"tflite": "raspberry-pi", "onnx": "linux-cpp"}[format]
    ended = in_process("export", "bundle", path, "--target", target, "-o", tmp_path / "folder")
    assert ended.code == 1
    assert "has changed since it was exported" in ended.err
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "claim",
    [
        {"labels": ["one", "two"]},
        {"image_shape": [32, 32, 1]},
        {"image_shape": [16, 16, 3]},
        {"io": "uint8"},
        {"output": {"name": "logits", "dtype": "float32", "classes": 3}},
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_contract_that_contradicts_the_graph_is_refused(in_process, copied, image, format, claim):
    path = copied(format, beside=False)
    with_contract(path, content_sha256=None, **claim)
    for command in (("predict", path, image), ("verify", path)):
        ended = in_process("export", *command)
        assert ended.code == 1
        (line,) = ended.err.splitlines()
        assert "contract" in line
        assert next(iter(claim)) in line


@pytest.mark.parametrize("beside", [True, False], ids=["with-sidecar", "alone"])
@pytest.mark.parametrize("format", FORMATS)
def test_bench_measures_a_file_that_has_changed_and_says_so(in_process, copied, format, beside):
    path = copied(format, beside=beside)
    with_contract(path, calibration="others")
    once = ("--min-runs", 2, "--min-seconds", 0, "--repeats", 1, "--warmup-seconds", 0)
    ended = in_process("bench", format, path, *once, "--json", "-")
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["artifact"]["changed"] is True
    assert any("has changed since it was exported" in text for text in result["warnings"])
    assert (result["parity"] is not None) is beside


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_export_has_the_same_bytes(in_process, exports, digits_run, tmp_path, format):
    path = tmp_path / f"small-none-float32.{format}"
    ended = in_process("export", format, digits_run, "-o", path)
    assert ended.code == 0, ended.err
    assert path.read_bytes() == exports(format).path.read_bytes()
