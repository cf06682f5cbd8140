"""Everything that a user may write where a command takes a MODEL."""

import hashlib
import json
import shutil

import keras
import numpy as np
import pytest

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.importers.source import in_memory, load_model
from cct_export.model import checkpoint
from cct_export.model.cct import CCT


def test_a_run_directory_gives_its_best_weights_and_its_data(digits_run, digits_model):
    loaded = load_model(str(digits_run))
    assert loaded.data == "digits"
    assert loaded.source == str(digits_run)
    best = checkpoint.load(digits_model)
    for weight, expected in zip(loaded.model.get_weights(), best.get_weights(), strict=True):
        assert np.array_equal(weight, expected)
    assert loaded.sha256 == hashlib.sha256(digits_model.read_bytes()).hexdigest()


def test_a_keras_file_gives_its_checksum_and_no_data(digits_model):
    loaded = load_model(str(digits_model))
    assert loaded.data is None
    assert loaded.sha256 == hashlib.sha256(digits_model.read_bytes()).hexdigest()


def test_a_tilde_is_the_home_folder(digits_model, tmp_path, monkeypatch):
    shutil.copy(digits_model, tmp_path / "m.keras")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_model("~/m.keras").model.output_shape == (None, 10)


def test_a_preset_gives_trained_weights():
    loaded = load_model("cct_keras_io")
    assert loaded.model.count_params() == 416_331
    assert loaded.source == "cct_keras_io"
    untrained = CCT(loaded.model.spec)
    biases = [w for w in loaded.model.weights if w.path.endswith("bias")]
    assert len(biases) == sum(w.path.endswith("bias") for w in untrained.weights)
    assert all(np.abs(bias).max() > 0 for bias in biases if "key" not in bias.path)


@pytest.mark.parametrize("name", ["cct_nonsense", "NOSUCHDIR", "NOSUCHDIR/", "no/such/run"])
def test_an_unknown_name_is_refused_with_everything_that_model_may_be(
    name, tmp_path, in_process, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ended = in_process("export", "tflite", name)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line == (
        f"error: there is no file, run directory or preset called {name}: MODEL is a .keras, .h5 "
        "or .weights.h5 file, a run directory, a preset with weights (cct_keras_io, "
        "cct_2_3x2_32, cct_keras_io_example), a PyTorch state dict (.pth, .safetensors), a folder "
        "with a SavedModel, or hf:OWNER/NAME"
    )


def test_a_run_without_a_finished_epoch_is_refused(digits_run, tmp_path):
    shutil.copy(digits_run / "run.json", tmp_path)
    with pytest.raises(InvalidModel, match=r"holds no finished epoch yet: no best\.keras"):
        load_model(str(tmp_path))


def test_a_folder_that_is_not_a_run_directory_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"is no model: it is a folder without run\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '"x"', '{"train": {}}', '{"model": {}, "train": 1}']
)
def test_a_run_json_of_another_program_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InvalidModel, match=r"run\.json"):
        load_model(str(tmp_path))


def test_a_run_json_without_data_is_refused(tmp_path, digits_run):
    record = json.loads((digits_run / "run.json").read_text())
    del record["train"]["data"]
    shutil.copy(digits_run / "best.keras", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InvalidModel, match=r"run\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["m.hdf", "model"])
def test_a_file_of_another_kind_is_refused_with_the_kinds_of_models(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        InvalidRequest, match=r"MODEL is a \.keras, \.h5 or \.weights\.h5 file, a run directory"
    ):
        load_model(str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"no such model file: .*gone\.tflite"):
        load_model(str(tmp_path / "gone.tflite"))
    (tmp_path / "model.keras").touch()
    with pytest.raises(InvalidRequest, match=r"did you mean .*model\.keras\?"):
        load_model(str(tmp_path / "modle.keras"))


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_an_exported_file_is_no_model_and_what_to_do_with_it_is_told(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    path.touch()
    with pytest.raises(InvalidRequest, match=f"`cct-bench {suffix} {path}` measures the file"):
        load_model(str(path))


def test_a_model_in_memory_has_the_checksum_of_its_weights(small_spec):
    model = CCT(small_spec)
    before = in_memory(model).sha256
    assert in_memory(model).sha256 == before
    weights = model.get_weights()
    weights[-1][0] += 1
    model.set_weights(weights)
    assert in_memory(model).sha256 != before
    assert in_memory(model).model is model


def test_a_model_in_memory_that_is_not_a_classifier_is_refused():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)], name="mine")
    with pytest.raises(InvalidModel, match="mine is not an image classifier"):
        in_memory(model)
