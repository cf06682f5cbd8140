"""Files of changed examples whose code is not there: the same logits, or a reason."""

import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cases"))
from changed_ccts import CHANGED_CCTS, CCTTokenizer, changed, layers, stages

from cct_export.errors import InvalidModel
from cct_export.importers.source import import_checkpoint, load_model
from cct_export.specs import ImportSpec, ModelOptions, Normalization

# What a file without its code cannot tell, and the beginning of the reason.
REFUSED = {
    "batch normalization": "nothing says which function",
    "batch normalization and SiLU": "nothing says which function",
    "a GELU of the user": "it has a function _gelu_of_the_user, which is not of Keras",
    "kernel 5, stride 2": "several settings of its tokenizer give 64 tokens",
    "class token": "it has a class ClassToken, which is not of Keras",
}


@pytest.fixture(autouse=True)
def only_names(monkeypatch):
    """Files have of the tokenizer what a class without ``get_config`` writes."""
    monkeypatch.setattr(CCTTokenizer, "get_config", lambda self: {"name": self.name})


def logits(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def images_for(model):
    shape = (4, *model.input_shape[1:])
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.float32)


def assert_same(imported, model):
    images = images_for(model)
    expected = logits(model, images)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the logits of the images must differ"
    np.testing.assert_allclose(logits(imported, images), expected, rtol=1e-5, atol=1e-5)


def has_gelu(case):
    return case not in ("ReLU in the MLP", "SiLU in the MLP", "no blocks", "a GELU of the user")


@pytest.mark.parametrize("case", CHANGED_CCTS)
def test_a_changed_example_is_read_without_its_code(tmp_path, case):
    model = CHANGED_CCTS[case]()
    model.save(tmp_path / "m.keras")
    options = ImportSpec(gelu="exact" if has_gelu(case) else None)
    if case in REFUSED:
        with pytest.raises(InvalidModel, match=REFUSED[case]) as refused:
            import_checkpoint(str(tmp_path / "m.keras"), options)
        assert "--import" in str(refused.value)
        return
    imported, _ = import_checkpoint(str(tmp_path / "m.keras"), options)
    assert_same(imported.model, model)
    assert any(note.startswith("assumed: ") for note in imported.notes)


# What weights alone cannot tell is assumed otherwise, and the notes say so.
ASSUMED_OTHERWISE = {
    "softmax head": "ends in logits",
    "sigmoid head": "ends in logits",
    "ReLU in the MLP": "GELU in the blocks",
    "SiLU in the MLP": "GELU in the blocks",
    "epsilon 1e-3": "epsilon 1e-05",
    "Rescaling to -1…1": "Rescaling(1/255)",
    "Resizing": "its Resizing",
}
REFUSED_WEIGHTS = {
    "class token": "left over: class_token",
    "slots × letters": "left over: reshape",
    "slots × letters of tokens": "left over: conv1d",
    "batch normalization": REFUSED["batch normalization"],
    "batch normalization and SiLU": REFUSED["batch normalization and SiLU"],
    "kernel 5, stride 2": "settings of its tokenizer",
    "Normalization": "give --mean and --std",
    "Rescaling and Normalization": "give --mean and --std",
    "24×48 pixels": "tokens of a square image",
    "average pooling": "settings of its tokenizer",
    "max pooling of 2, valid": "settings of its tokenizer",
}


@pytest.mark.parametrize("case", [case for case in CHANGED_CCTS if case not in ASSUMED_OTHERWISE])
def test_the_weights_of_a_changed_example_give_its_logits_or_a_reason(tmp_path, case):
    model = CHANGED_CCTS[case]()
    path = str(tmp_path / "m.weights.h5")
    model.save_weights(path)
    if case in REFUSED_WEIGHTS:
        with pytest.raises(InvalidModel, match=REFUSED_WEIGHTS[case]):
            load_model(path)
        return
    imported, _ = import_checkpoint(path, ImportSpec(gelu="exact"))
    assert_same(imported.model, model)


@pytest.mark.parametrize("case", ASSUMED_OTHERWISE)
def test_what_weights_do_not_tell_is_named(tmp_path, case):
    path = str(tmp_path / "m.weights.h5")
    CHANGED_CCTS[case]().save_weights(path)
    imported, _ = import_checkpoint(path, ImportSpec(gelu="exact"))
    said = [note for note in imported.notes if note.startswith("assumed: ")]
    assert any(ASSUMED_OTHERWISE[case] in note for note in said)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_an_import_and_an_export_say_what_to_do_where_an_assumption_is_wrong(
    tmp_path, suffix, caplog
):
    path = tmp_path / f"m{suffix}"
    model = changed()
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    advice = (
        "if an assumption is wrong, export the whole model, saved as .keras, with its code: "
        "--import FILE.py"
    )
    assert import_checkpoint(str(path), ImportSpec())[0].notes.count(advice) == 1
    caplog.set_level("INFO", "cct_export")
    load_model(str(path))
    assert caplog.messages[-1] == f"{path}: {advice}"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (1, "it ends in a logit, not in a sigmoid"),
        (3, "it ends in logits, not in sigmoids; exporting with --softmax appends a softmax"),
    ],
)
def test_a_softmax_is_advised_where_it_can_be_appended(tmp_path, classes, said):
    model = changed(head=lambda: [layers.Dense(classes)])
    model.save_weights(tmp_path / "m.weights.h5")
    imported, _ = import_checkpoint(str(tmp_path / "m.weights.h5"), ImportSpec())
    (note,) = [note for note in imported.notes if "it ends in" in note]
    assert note == f"assumed: {said}"


def test_weights_of_another_model_are_refused_with_what_can_be_read(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(InvalidModel) as refused:
        load_model(str(tmp_path / "m.weights.h5"))
    assert str(refused.value) == (
        f"{tmp_path}/m.weights.h5 does not hold the keras.io example's weights, the only ones that "
        "are read without their model; save the whole model as .keras: left over: conv2d/vars/0"
    )


def test_a_normalization_that_is_given_takes_the_place_of_the_assumed_scaling(tmp_path):
    model = changed(front=lambda: [layers.Rescaling(1 / 127.5, -1)], activation=keras.ops.gelu)
    model.save_weights(tmp_path / "m.weights.h5")
    options = ModelOptions(normalization=Normalization(scale=1 / 127.5, mean=(1.0,)))
    assert_same(load_model(str(tmp_path / "m.weights.h5"), options).model, model)
    with pytest.raises(AssertionError):
        assert_same(load_model(str(tmp_path / "m.weights.h5")).model, model)


def test_constants_that_a_weights_file_lacks_can_be_given(tmp_path):
    front = [layers.Normalization(mean=[120, 110, 100], variance=[3600, 4000, 4200])]
    model = changed(front=lambda: front, activation=keras.ops.gelu)
    model.save_weights(tmp_path / "m.weights.h5")
    std = tuple(float(np.sqrt(each)) for each in (3600, 4000, 4200))
    options = ModelOptions(normalization=Normalization(mean=(120.0, 110.0, 100.0), std=std))
    assert_same(load_model(str(tmp_path / "m.weights.h5"), options).model, model)


def test_settings_that_the_class_was_called_with_are_used(tmp_path, monkeypatch):
    model = changed(
        tokenizer=lambda: stages((32,), kernel=5, stride=2, activation="silu"),
        activation=keras.ops.gelu,
    )
    settings = {"kernel_size": 5, "stride": 2, "padding": 1, "pooling_kernel_size": 3,
                "pooling_stride": 2, "activation": "silu"}  # fmt: skip
    monkeypatch.setattr(CCTTokenizer, "get_config", lambda self: {"name": self.name, **settings})
    model.save(tmp_path / "m.keras")
    assert_same(load_model(str(tmp_path / "m.keras")).model, model)


def test_what_was_assumed_is_said(tmp_path, caplog):
    changed().save_weights(tmp_path / "m.weights.h5")
    with caplog.at_level("INFO", logger="cct_export"):
        load_model(str(tmp_path / "m.weights.h5"))
    for word in ("Rescaling(1/255)", "logits", "tanh GELU", "epsilon 1e-05", "ReLU"):
        assert word in caplog.text


def test_an_import_of_a_changed_example_is_read_again(tmp_path):
    model = changed(activation=keras.ops.gelu, head=lambda: [layers.Dense(7), layers.Dense(5)])
    model.save(tmp_path / "m.keras")
    imported, _ = import_checkpoint(str(tmp_path / "m.keras"), ImportSpec())
    assert any("not an architecture" in note for note in imported.notes)
    imported.model.save(tmp_path / "ours.keras")
    assert_same(load_model(str(tmp_path / "ours.keras")).model, model)


def test_weights_that_ask_for_a_vast_layer_are_refused_before_it_is_made(tmp_path):
    changed().save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5", "a") as file:
        for part, shape in (("query", (32, 200_000, 1)), ("value", (32, 1, 200_000))):
            kernel = f"layers/multi_head_attention/{part}_dense/vars/0"
            del file[kernel]
            file[kernel] = np.zeros(shape, np.float32)
    # 200,000 heads of 200,000 values.
    with pytest.raises(InvalidModel, match=r"MultiHeadAttention has weights of"):
        load_model(str(tmp_path / "m.weights.h5"))


def test_a_giant_fixed_batch_is_refused_before_it_is_computed(tmp_path):
    image = keras.Input((64, 64, 3), batch_size=512)
    convolved = layers.Conv2D(1024, 1)(image)
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(convolved)))
    model.save(tmp_path / "m.keras")
    # Keras writes the shapes of all tensors, and does not read them.
    config = zipfile.ZipFile(tmp_path / "m.keras").read("config.json").decode()
    config = config.replace("[512, 64, 64, 1024]", "[1]")
    with zipfile.ZipFile(tmp_path / "m.keras", "a") as archive:
        archive.writestr("config.json", config)
    with pytest.raises(InvalidModel, match="512 images that the model takes at a time"):
        load_model(str(tmp_path / "m.keras"))
