"""Calibration records: an export without images is as good as one with them."""

import shutil

import numpy as np
import pytest

import cct_export
from cct_export.data import read
from cct_export.export.workspace import Workspace, write_calibration_record


@pytest.fixture(scope="module")
def recorded(digits_run, tmp_path_factory):
    """A copy of the run whose data is not at hand, with its record."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    shutil.copytree(digits_run, folder)
    loaded = cct_export.load(folder)
    write_calibration_record(
        loaded, read("digits", (32, 32, 3)), samples=200, path=folder / "calibration.npz"
    )
    record = folder / "run.json"
    record.write_text(record.read_text().replace('"digits"', '"gone-from-here"'))
    return folder


def test_a_run_without_its_data_is_calibrated_on_its_record(recorded, tmp_path, exports):
    exported = cct_export.export_tflite(recorded, output=tmp_path / "m.tflite", scheme="int8")
    assert exported.artifact.contract.calibration == "record of 200 training images of digits"
    again = cct_export.verify(exported.artifact.path, against=recorded, data="digits")
    with_data = exports("tflite", "int8").record["parity"]["sqnr_db"]
    assert again.sqnr_db == pytest.approx(with_data, abs=1.0)


def test_a_record_is_used_in_every_scheme_and_format(recorded, tmp_path):
    for format, scheme in (("tflite", "int8-full"), ("onnx", "int8"), ("onnx", "int8-dynamic")):
        path = tmp_path / f"{scheme}.{format}"
        export = getattr(cct_export, f"export_{format}")
        exported = export(recorded, output=path, scheme=scheme, parity_samples=64)
        assert exported.artifact.contract.calibration.startswith("record of"), (format, scheme)


def test_training_leaves_a_record(tmp_path):
    from cct_export.specs import TrainSpec

    cct_export.train(tmp_path / "run", recipe=TrainSpec(data="digits", epochs=1))
    assert (tmp_path / "run" / "calibration.npz").stat().st_size > 1000


def test_the_shipped_model_is_calibrated_on_its_record(tmp_path, caplog):
    exported = cct_export.export_tflite(
        output=tmp_path / "m.tflite", scheme="int8", parity_samples=64
    )
    assert exported.artifact.contract.calibration == "record of 200 training images of cifar10"
    assert exported.parity.passed


def test_a_record_of_other_weights_is_left_aside(recorded, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(recorded, folder)
    loaded = cct_export.load(folder)
    for variable in loaded.model.trainable_variables:
        variable.assign(np.asarray(variable) * 1.01)
    loaded.model.save(folder / "best.keras")
    exported = cct_export.export_tflite(
        folder, output=tmp_path / "m.tflite", scheme="int8", parity_samples=64
    )
    assert exported.artifact.contract.calibration == "200 photo crops"


@pytest.mark.parametrize("content", [b"", b"not a record", b"PK\x03\x04 cut"])
def test_a_damaged_record_is_said_and_photo_crops_serve(recorded, tmp_path, caplog, content):
    folder = tmp_path / "run"
    shutil.copytree(recorded, folder)
    (folder / "calibration.npz").write_bytes(content)
    with caplog.at_level("WARNING", "cct_export"):
        exported = cct_export.export_tflite(
            folder, output=tmp_path / "m.tflite", scheme="int8", parity_samples=64
        )
    assert exported.artifact.contract.calibration == "200 photo crops"
    assert "is no calibration record" in caplog.text


def test_a_step_that_is_not_there_cannot_stay_float(digits_model):
    from cct_export.errors import InvalidRequest
    from cct_export.quantize.schemes import scheme_of
    from cct_export.specs import CalibrationSpec, ExportSpec

    workspace = Workspace(
        cct_export.load(digits_model), data=None, calibration_samples=16, parity_samples=16
    )
    draft = workspace.draft(ExportSpec("tflite"), scheme_of("int8", "tflite"))
    with pytest.raises(InvalidRequest, match="no step is called 'nowhere'"):
        draft.quantized(CalibrationSpec(floats=("nowhere",)))
