"""``.keras`` files of the keras.io example's classes, changed ones, and malicious archives."""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
from published import published_example, randomised

import cct_export
from cct_export.errors import InvalidModel
from cct_export.importers.source import import_checkpoint, load_model
from cct_export.model.cct import CCT
from cct_export.model.presets import IMAGENET
from cct_export.specs import ImportSpec

IMAGES = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)


def _logits(model):
    return keras.ops.convert_to_numpy(model(IMAGES, training=False))


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A ``.keras`` file of the example's own classes, and its logits."""
    path = tmp_path_factory.mktemp("example") / "example.keras"
    keras.backend.clear_session()  # which counts the layers of a process
    model = randomised(published_example())
    model.save(path)
    return path, _logits(model)


@pytest.fixture
def changed(example, tmp_path):
    """Copies the example's file with edited configuration and weights; returns the path."""

    def make(edit=lambda config: None, weights=lambda file: None):
        path = tmp_path / "m.keras"
        with zipfile.ZipFile(example[0]) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    edit(config["config"]["layers"])
                    content = json.dumps(config).encode()
                if name == "model.weights.h5":
                    (tmp_path / "w.h5").write_bytes(content)
                    with h5py.File(tmp_path / "w.h5", "a") as file:
                        weights(file["layers"])
                    content = (tmp_path / "w.h5").read_bytes()
                    (tmp_path / "w.h5").unlink()
                new.writestr(name, content)
        return path

    return make


def test_a_file_of_the_examples_classes_gives_its_logits_without_them(example):
    path, expected = example
    assert np.ptp(expected, axis=0).min() > 1e-3
    imported, _ = import_checkpoint(str(path), ImportSpec())
    np.testing.assert_allclose(_logits(imported.model), expected, rtol=1e-5, atol=1e-5)
    assert (imported.tensors, imported.parameters) == (41, 416_331)
    assert any("were not run" in note for note in imported.notes)


@pytest.mark.parametrize(
    "changes",
    [{"classes": 3, "blocks": 1}, {"heads": 1, "blocks": 3}, {"positional": False, "size": 21}],
    ids=str,
)
def test_other_hyperparameters_are_read_from_configuration_and_weights(tmp_path, changes):
    model = randomised(published_example(**changes))
    model.save(tmp_path / "m.keras")
    imported = load_model(str(tmp_path / "m.keras")).model
    images = IMAGES[:, : model.input_shape[1], : model.input_shape[2]]
    expected = model(images, training=False)
    np.testing.assert_allclose(imported(images, training=False), expected, rtol=1e-5, atol=1e-5)


def test_the_exact_gelu_is_used_on_request(tmp_path):
    model = randomised(published_example(activation="gelu"))
    model.save(tmp_path / "m.keras")
    exact, _ = import_checkpoint(str(tmp_path / "m.keras"), ImportSpec(gelu="exact"))
    np.testing.assert_allclose(_logits(exact.model), _logits(model), rtol=1e-5, atol=1e-5)
    tanh, _ = import_checkpoint(str(tmp_path / "m.keras"), ImportSpec())
    assert np.abs(_logits(tanh.model) - _logits(model)).max() > 1e-4


def test_the_exact_gelu_survives_saving_folding_and_both_formats(tmp_path):
    model = randomised(published_example(activation="gelu"))
    for format in ("tflite", "onnx"):
        export = getattr(cct_export, f"export_{format}")
        assert export(model, output=tmp_path / f"m.{format}", parity_samples=16).parity.passed
    model.save(tmp_path / "theirs.keras")
    cct_export.import_model(tmp_path / "theirs.keras", output=tmp_path / "ours.keras", gelu="exact")
    imported = cct_export.load(tmp_path / "ours.keras").model
    assert imported.spec.gelu == "exact"
    np.testing.assert_allclose(_logits(imported), _logits(model), rtol=1e-5, atol=1e-5)


def _layer(layers, name):
    return next(layer for layer in layers if layer["name"] == name)


def _of_kind(layers, kind):
    """The layers of a class, by position: Keras counts the layers of a process in their names."""
    return [layer for layer in layers if layer["class_name"] == kind]


def _other_epsilon(layers):
    _of_kind(layers, "LayerNormalization")[1]["config"]["epsilon"] = 1e-6


def _other_activation(layers):
    _of_kind(layers, "Dense")[1]["config"]["activation"] = "relu"


def _other_scale(layers):
    inner = _layer(layers, "data_augmentation")["config"]["layers"]
    rescaling = next(layer for layer in inner if layer["class_name"] == "Rescaling")
    rescaling["config"]["scale"] = 1 / 127.5


def _other_residual(layers):
    first, second, third = _of_kind(layers, "Add")[-3:]
    text = json.dumps(third["inbound_nodes"])
    edited = text.replace(f'"{second["name"]}"', f'"{first["name"]}"')
    assert edited != text
    third["inbound_nodes"] = json.loads(edited)


def _without_norm(layers):
    del layers[5]


def _other_layer(layers):
    layers.insert(4, {"class_name": "BatchNormalization", "name": "b", "config": {"name": "b"}})


@pytest.mark.parametrize("edit", [_other_activation, _other_scale, _other_residual])
def test_another_configuration_gives_other_logits_and_no_cct(changed, example, edit):
    model = load_model(str(changed(edit))).model
    assert not isinstance(model, CCT)
    assert np.abs(_logits(model) - example[1]).max() > 1e-4


def test_another_epsilon_is_kept_though_it_hardly_shows_in_logits(changed):
    model = load_model(str(changed(_other_epsilon))).model
    assert not isinstance(model, CCT)
    norms = [x for x in model.layers if isinstance(x, keras.layers.LayerNormalization)]
    assert [norm.epsilon for norm in norms] == [1e-5, 1e-6, 1e-5, 1e-5, 1e-5]


@pytest.mark.parametrize("edit", [_without_norm, _other_layer, list.clear])
def test_a_damaged_configuration_is_refused_in_one_line(changed, edit):
    with pytest.raises(InvalidModel, match=r"cannot be (loaded|read)") as refused:
        load_model(str(changed(edit)))
    assert "\n" not in str(refused.value)


def _remove(file):
    del file["multi_head_attention/key_dense/vars/0"]


def _add(file):
    file["batch_normalization/vars/0"] = np.zeros(3, np.float32)


def _nan(file):
    file["dense_1/vars/0"][2, 3] = np.nan


def _huge(file):
    del file["dense_1/vars/0"]
    file["dense_1/vars"].create_dataset("0", (10**6, 10**6), np.float32)


def _elsewhere(file):
    del file["dense_1/vars/0"]
    outside = [("/etc/passwd", 0, 128 * 128 * 4)]
    file["dense_1/vars"].create_dataset("0", (128, 128), np.float32, external=outside)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_remove, "does not hold the example's weights"),
        (_add, r"left over: batch_normalization/vars/0"),
        (_nan, r"1 of 16384 numbers of dense_1/vars/0 are not finite"),
        (_huge, r"claims to hold 4,000,00"),
        (_elsewhere, "its weights are in other files"),
    ],
)
def test_unsuitable_weights_are_refused(changed, edit, reason):
    path = changed(weights=edit)
    with pytest.raises(InvalidModel, match=reason):
        load_model(str(path))


def _no_classes(file):
    # By shape: Keras counts the dense layers of a process.
    name = next(
        name for name in file if "vars/1" in file[name] and file[name]["vars/1"].shape == (10,)
    )
    del file[name]["vars/1"]
    file[name]["vars"].create_dataset("1", (0,), np.float32)


def test_weights_without_classes_are_refused(changed, tmp_path):
    path = changed(weights=_no_classes)
    with pytest.raises(InvalidModel, match="does not hold the example's weights"):
        load_model(str(path))
    with zipfile.ZipFile(path) as archive:
        (tmp_path / "m.weights.h5").write_bytes(archive.read("model.weights.h5"))
    with pytest.raises(InvalidModel, match=r"does not hold the keras\.io example's weights"):
        load_model(str(tmp_path / "m.weights.h5"))


@pytest.mark.parametrize("edit", [_add, _nan, _huge, _elsewhere])
def test_unsuitable_weights_are_refused_in_a_weights_file_too(changed, tmp_path, edit):
    with zipfile.ZipFile(changed(weights=edit)) as archive:
        (tmp_path / "m.weights.h5").write_bytes(archive.read("model.weights.h5"))
    with pytest.raises(InvalidModel, match=r"left over|not finite|claims to hold|in other files"):
        load_model(str(tmp_path / "m.weights.h5"))


@pytest.mark.parametrize("ours", [True, False])
def test_a_zip_bomb_is_refused(example, digits_model, tmp_path, in_process, monkeypatch, ours):
    monkeypatch.chdir(tmp_path)
    shutil.copy(digits_model if ours else example[0], "bomb.keras")
    with zipfile.ZipFile("bomb.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(1 << 28))
    ended = in_process("export", "import", "bomb.keras", "-o", "m.keras")
    assert ended.code == 1
    assert "claims to hold 2" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.keras"]


def test_a_file_is_not_overwritten_by_its_import(example, tmp_path, in_process, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(example[0], "m.keras")
    before = (tmp_path / "m.keras").read_bytes()
    ended = in_process("export", "import", "m.keras")
    assert ended.code == 2
    assert "m.keras is what is imported" in ended.err
    assert (tmp_path / "m.keras").read_bytes() == before


def test_a_cct_is_adapted_by_an_import(digits_model, tmp_path, in_process):
    arguments = (digits_model, "--classes", 4, "--image-size", 48, "-o", tmp_path / "m.keras")
    ended = in_process("export", "import", *arguments)
    assert ended.code == 0, ended.err
    assert "a new head for 4 classes in place of 10" in ended.err
    model = cct_export.load(tmp_path / "m.keras").model
    assert (model.input_shape, model.output_shape) == ((None, 48, 48, 3), (None, 4))


def test_another_normalization_of_a_trained_model_is_noted(digits_model):
    imported, _ = import_checkpoint(str(digits_model), ImportSpec(normalize="imagenet"))
    assert imported.model.spec.mean == IMAGENET[0]
    assert imported.notes == ("normalization replaced: the weights were trained with another",)


def test_an_import_of_a_run_keeps_its_best_weights(digits_run, tmp_path, in_process, monkeypatch):
    run = tmp_path / "numerals"
    shutil.copytree(digits_run, run)
    monkeypatch.chdir(run)
    before = (run / "best.keras").read_bytes()
    for source in (".", run):
        ended = in_process("export", "import", source, "--classes", 4, "-o", "best.keras")
        assert ended.code == 2
        assert "best.keras is what is imported" in ended.err
    assert (run / "best.keras").read_bytes() == before
    assert in_process("export", "import", ".").code == 0
    assert (run / "numerals.keras").is_file()


def test_a_model_that_is_not_a_cct_is_not_adapted(tmp_path, in_process):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.save(tmp_path / "other.keras")
    arguments = (tmp_path / "other.keras", "--classes", 4, "-o", tmp_path / "m.keras")
    ended = in_process("export", "import", *arguments)
    assert ended.code == 2
    assert "is not a CCT" in ended.err
