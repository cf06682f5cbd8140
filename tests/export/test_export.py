"""A file gets its name when parity is verified; else it is rejected, and a good one stays."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from cct_export import api
from cct_export.data import read, sampling
from cct_export.errors import CCTExportError, InvalidData, InvalidRequest
from cct_export.evaluation import parity
from cct_export.model.cct import CCT
from cct_export.records import sidecar
from cct_export.training.transfer import load_pretrained


@pytest.fixture
def impossible(monkeypatch):
    """No file can reach what parity demands."""
    for scheme in parity.POLICIES:
        monkeypatch.setitem(parity.POLICIES, scheme, parity.Policy(1e6, 1.0))


@pytest.fixture(scope="module")
def loaded(digits_run):
    return api.load(digits_run)


def _snapshot(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_verified_file_comes_with_a_sidecar_that_belongs_to_it(tmp_path, loaded):
    path = tmp_path / "m.tflite"
    exported = api.export_tflite(loaded, output=path, parity_samples=40)
    assert exported.parity.passed
    assert sorted(_snapshot(tmp_path)) == ["m.tflite", "m.tflite.json"]
    golden = sidecar.read(path).golden
    assert golden.images.shape == (sidecar.GOLDEN_IMAGES, 32, 32, 3)
    expected = loaded.model.predict_on_batch(golden.images.astype(np.float32))
    np.testing.assert_allclose(golden.logits, expected, atol=1e-5)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_rejected_file_does_not_replace_a_good_one(
    tmp_path, loaded, format, monkeypatch, request
):
    path = tmp_path / f"m.{format}"
    export = getattr(api, f"export_{format}")
    export(loaded, output=path, parity_samples=16)
    good = _snapshot(tmp_path)
    request.getfixturevalue("impossible")
    exported = export(loaded, output=path, parity_samples=16)
    assert not exported.parity.passed
    assert exported.artifact.path == tmp_path / f"m.{format}.rejected"
    after = _snapshot(tmp_path)
    assert after.pop(f"m.{format}.rejected")
    assert after == good
    assert sidecar.read(path) is not None


def test_a_rejected_file_has_no_sidecar(tmp_path, loaded, impossible):
    api.export_tflite(loaded, output=tmp_path / "m.tflite", parity_samples=16)
    assert sorted(_snapshot(tmp_path)) == ["m.tflite.rejected"]


def test_a_verified_file_removes_the_rejected_one_of_its_name(tmp_path, loaded):
    (tmp_path / "m.tflite.rejected").write_bytes(b"an earlier try")
    api.export_tflite(loaded, output=tmp_path / "m.tflite", parity_samples=16)
    assert not (tmp_path / "m.tflite.rejected").exists()


def test_the_command_ends_with_3_and_says_why_a_file_was_rejected(
    tmp_path, digits_run, in_process, impossible
):
    path = tmp_path / "m.tflite"
    ended = in_process("export", "tflite", digits_run, "-o", path, "--samples", 16, "--json", "-")
    assert ended.code == 3
    assert "parity FAILED" in ended.err
    assert "is below 1000000 dB" in ended.err
    assert ended.record["artifact"]["path"].endswith("m.tflite.rejected")
    assert ended.record["parity"]["passed"] is False
    assert not path.exists()


def test_a_bench_of_a_model_does_not_measure_what_was_rejected(
    tmp_path, digits_model, in_process, impossible
):
    ended = in_process("bench", "tflite", digits_model)
    assert ended.code == 3
    assert "is not measured" in ended.err
    assert ended.out == ""


def test_a_model_that_gives_nan_is_rejected(tmp_path, loaded):
    import keras

    from cct_export.importers.source import in_memory

    model = keras.models.clone_model(loaded.model)
    weights = [weight.copy() for weight in loaded.model.get_weights()]
    weights[-2][:] = 3e38  # finite, and too large for any sum of them
    model.set_weights(weights)
    exported = api.export_tflite(in_memory(model), output=tmp_path / "m.tflite", parity_samples=16)
    assert "the logits hold NaN or infinity" in exported.parity.failures
    json.dumps(exported.to_dict(), allow_nan=False)


@pytest.mark.parametrize("output", ["m.onnx", "m", "m.tflite.bak"])
def test_an_output_of_another_suffix_is_refused_before_any_work(tmp_path, loaded, output):
    with pytest.raises(InvalidRequest, match=r"ends in \.tflite"):
        api.export_tflite(loaded, output=tmp_path / output)
    assert not _snapshot(tmp_path)


def test_calibration_on_images_of_one_colour_is_refused(tmp_path, loaded):
    blank = np.full((4, 32, 32, 3), 7, np.uint8)
    data = tmp_path / "blank.npz"
    labels = np.arange(4)
    np.savez(
        data, x_train=blank, y_train=labels, x_test=blank, y_test=labels,
        classes=np.array(list("0123456789")),
    )  # fmt: skip
    with pytest.raises(InvalidData, match="all one colour"):
        api.export_tflite(loaded, output=tmp_path / "m.tflite", scheme="int8", data=str(data))
    assert sorted(_snapshot(tmp_path)) == ["blank.npz"]


def test_a_run_is_calibrated_and_compared_on_the_data_it_was_trained_on(
    tmp_path, digits_run, digits_model, caplog
):
    with caplog.at_level(logging.INFO, "cct_export"):
        of_run = api.export_tflite(
            digits_run,
            output=tmp_path / "a.tflite",
            scheme="int8",
            calibration_samples=8,
            parity_samples=16,
        )
        of_file = api.export_tflite(
            digits_model,
            output=tmp_path / "b.tflite",
            scheme="int8",
            calibration_samples=8,
            parity_samples=16,
        )
    assert of_run.artifact.contract.calibration == "8 training images of digits"
    assert of_run.parity.images == "16 test images of digits"
    assert of_file.artifact.contract.calibration == "8 photo crops"
    assert of_file.parity.images == "16 photo crops"
    assert "calibrated on 8 photo crops: no training images available" in caplog.text


@pytest.mark.parametrize(
    "counts", [{"calibration_samples": 0, "scheme": "int8"}, {"parity_samples": 0}]
)
def test_no_images_at_all_are_refused(tmp_path, loaded, counts):
    with pytest.raises(CCTExportError, match="samples must be at least 1, not 0"):
        api.export_tflite(loaded, output=tmp_path / "m.tflite", **counts)
    assert not _snapshot(tmp_path)


def test_the_default_name_is_of_model_and_scheme(tmp_path, digits_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for scheme, name in (("none", "best.tflite"), ("fp16", "best-fp16.tflite")):
        exported = api.export_tflite(digits_model, scheme=scheme, parity_samples=8)
        assert exported.artifact.path.name == name
        assert (tmp_path / name).is_file()


# verify -----------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path, exports):
    """Copies an export, with its sidecar if it has one, to where it may be damaged."""

    def copy(format, scheme="none", beside=False):
        original = exports(format, scheme).path
        path = tmp_path / original.name
        path.write_bytes(original.read_bytes())
        if beside:
            sidecar.path_of(path).write_bytes(sidecar.path_of(original).read_bytes())
        return path

    return copy


def with_damaged_weights(path):
    """Sets the weights of the first convolution to zero, where they lie in the file."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    index = next(int(o.inputs[1]) for o in graph.operators if len(o.inputs) == 3)
    weights = model.buffers[graph.tensors[index].buffer].data.tobytes()
    content = path.read_bytes()
    assert content.count(weights) == 1
    path.write_bytes(content.replace(weights, bytes(len(weights))))


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_verify_passes_what_was_exported(in_process, exports, format, scheme):
    path, record = exports(format, scheme)
    ended = in_process("export", "verify", path, "--json", "-", "--samples", 64)
    assert ended.code == 0, ended.err
    told = ended.record
    assert told["artifact"]["sha256"] == record["artifact"]["sha256"]
    assert told["parity"]["scheme"] == scheme
    assert told["parity"]["samples"] == 64
    assert told["parity"]["passed"] is True


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_verify_finds_damaged_weights_and_leaves_the_file(in_process, copied, scheme):
    path = copied("tflite", scheme)
    with_damaged_weights(path)
    before = _snapshot(path.parent)
    ended = in_process("export", "verify", path, "--json", "-", "--samples", 64)
    assert ended.code == 3, ended.err
    assert "parity FAILED" in ended.err
    assert ended.record["parity"]["passed"] is False
    assert _snapshot(path.parent) == before


def test_verify_says_when_the_model_has_changed_since(
    tmp_path, in_process, digits_model, small_spec
):
    from cct_export.model.cct import CCT

    model = tmp_path / "m.keras"
    model.write_bytes(digits_model.read_bytes())
    path = tmp_path / "m.tflite"
    assert in_process("export", "tflite", model, "-o", path, "--samples", 8).code == 0
    CCT(small_spec).save(model)
    ended = in_process("export", "verify", path)
    assert ended.code == 1
    assert "has changed since" in ended.err
    against = in_process("export", "verify", path, "--against", model)
    assert against.code == 3
    assert in_process("export", "verify", path, "--against", digits_model).code == 0


def test_verify_against_a_model_of_other_classes_is_refused(
    tmp_path, in_process, exports, small_spec
):
    model = tmp_path / "seven.keras"
    CCT(replace(small_spec, classes=7)).save(model)
    ended = in_process("export", "verify", exports("tflite").path, "--against", model)
    assert ended.code == 2, ended.err
    assert "not the same model" in ended.err


def test_verify_against_a_model_of_other_images_is_refused(
    tmp_path, in_process, exports, small_spec
):
    model = tmp_path / "large.keras"
    CCT(replace(small_spec, image_size=16)).save(model)
    ended = in_process("export", "verify", exports("onnx").path, "--against", model)
    assert ended.code == 2, ended.err
    assert "not the same model" in ended.err


@pytest.mark.parametrize("export", [api.export_tflite, api.export_onnx])
def test_a_model_with_positions_of_another_resolution_is_exported(
    tmp_path, loaded, small_spec, export
):
    model = CCT(replace(small_spec, image_size=48))
    load_pretrained(loaded.model, model)
    format = export.__name__.removeprefix("export_")
    exported = export(model, output=tmp_path / f"m.{format}", data=None)
    assert exported.parity.passed
    assert exported.artifact.contract.input.shape[1:3] == (48, 48)


def test_golden_images_are_spread_over_those_that_proved_it(tmp_path, loaded):
    exported = api.export_tflite(
        loaded, output=tmp_path / "m.tflite", data="digits", parity_samples=100
    )
    assert exported.parity.passed
    golden = sidecar.read(tmp_path / "m.tflite").golden
    images = sampling.parity(read("digits", (32, 32, 3)), (32, 32, 3), 100).images
    assert len(golden.images) == sidecar.GOLDEN_IMAGES
    assert (golden.images[0] == images[0]).all()
    assert (golden.images[-1] == images[-1]).all()
