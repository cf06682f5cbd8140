"""Reading ``.keras`` files: other files and unsafe ones are refused in one line."""

import dataclasses
import json
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from cct_export.errors import InvalidModel, InvalidRequest, OutputError
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec


@pytest.fixture(scope="module")
def tiny():
    spec = ModelSpec(
        image_size=8, classes=2, filters=(4,), layers=1, heads=1, head_dim=2, mlp_units=(4,),
        labels=("yes", "no"),
    )  # fmt: skip
    return CCT(spec)


@pytest.fixture
def file(tiny, tmp_path):
    checkpoint.save(tiny, tmp_path / "m.keras")
    return tmp_path / "m.keras"


def test_a_saved_model_is_loaded_unchanged(tiny, file):
    again = checkpoint.load(file)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    assert np.array_equal(again(images, training=False), tiny(images, training=False))
    assert checkpoint.labels(again) == ("yes", "no")
    assert checkpoint.image_shape(again) == (8, 8, 3)


def test_a_copy_without_optimizer_is_the_same_model_in_fewer_bytes(tiny, tmp_path):
    trained = CCT(tiny.spec)
    trained.compile(optimizer="adam", loss="mse")
    trained.optimizer.build(trained.trainable_variables)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    copy = checkpoint.without_optimizer(trained)
    assert np.array_equal(copy(images, training=False), trained(images, training=False))
    checkpoint.save(trained, tmp_path / "trained.keras")
    checkpoint.save(copy, tmp_path / "copy.keras")
    assert (tmp_path / "copy.keras").stat().st_size < (tmp_path / "trained.keras").stat().st_size


def test_a_path_that_cannot_be_written_is_an_output_error(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        checkpoint.save(tiny, tmp_path / "file/m.keras")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"no such model file: .*none\.keras"):
        checkpoint.load(tmp_path / "none.keras")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "m.keras").mkdir()
    with pytest.raises(InvalidRequest, match=r"m\.keras is a folder"):
        checkpoint.load(tmp_path / "m.keras")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 but no zip"])
def test_another_file_named_like_a_model_is_refused(tmp_path, content):
    (tmp_path / "m.keras").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"m\.keras is not a \.keras file"):
        checkpoint.load(tmp_path / "m.keras")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(file, part):
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(InvalidModel, match="truncated"):
        checkpoint.load(file)


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_a_file_without_one_of_its_parts_is_refused(file, missing):
    _rewrite(file, lambda name, content: None if name == missing else content)
    with pytest.raises(InvalidModel, match=r"m\.keras cannot be loaded"):
        checkpoint.load(file)


def test_an_error_message_is_one_line(file):
    _rewrite(file, lambda name, content: b"{}" if name == "config.json" else content)
    with pytest.raises(InvalidModel) as refused:
        checkpoint.load(file)
    assert "\n" not in str(refused.value)


def _rewrite(path, change):
    """Passes every part of a ``.keras`` file through ``change``; None drops it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if (changed := change(name, content)) is not None:
                archive.writestr(name, changed)


@pytest.mark.parametrize(
    "changes",
    [{"mlp_units": [10**9, 16]}, {"classes": 10**9, "labels": []}, {"layers": 10**6}],
)
def test_an_architecture_larger_than_its_file_is_refused_before_it_is_built(file, changes):
    def change(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        config["config"]["spec"] |= changes
        config["config"]["spec"]["mlp_units"][-1] = config["config"]["spec"]["filters"][-1]
        return json.dumps(config).encode()

    _rewrite(file, change)
    with pytest.raises(InvalidModel, match="bytes and claims to hold"):
        checkpoint.load(file)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # A negative number would hide the billion in the sum.
        (
            {"classes": -(10**12), "mlp_units": [10**9, 4]},
            "classes must be at least 1, not -1000000000000",
        ),
        ({"classes": float("nan"), "mlp_units": [10**9, 4]}, "not nan"),
        ({"heads": "2", "head_dim": 10**9}, "heads must be a whole number, not '2'"),
        ({"mlp_units": [0, 4]}, "each of mlp_units must be at least 1, not 0"),
        ({"layers": -1}, "layers must be at least 0, not -1"),
    ],
)
def test_an_architecture_with_invalid_sizes_is_refused(file, changes, reason):
    def change(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        config["config"]["spec"] |= {"labels": []} | changes
        return json.dumps(config).encode()

    _rewrite(file, change)
    with pytest.raises(InvalidModel, match=reason):
        checkpoint.load(file)


def _set(**values):
    """Returns an edit that sets these values in every layer that has them."""

    def edit(config):
        if isinstance(config, dict):
            config |= {name: value for name, value in values.items() if name in config}
            config = list(config.values())
        for inner in config if isinstance(config, list) else []:
            edit(inner)

    return edit


def _unbuilt(**values):
    """Returns an edit after which Keras infers the shapes from the order of the layers."""

    def edit(config):
        for layer in config["config"]["layers"]:
            layer.pop("build_config", None)
        _set(**values)(config)

    return edit


def _false_build_config(config):
    """Declares a large input of the last layer, while all widths are small."""
    config["config"]["layers"][-1]["build_config"] = {"input_shape": [None, 10**7]}
    _set(units=10**4)(config)


def _giant_before_code(config):
    """Puts a refused layer behind one that would fill the memory."""
    _set(units=10**9)(config)
    code = {"class_name": "Lambda", "config": {}, "module": "keras.layers"}
    config["config"]["layers"].append(code)


GIANTS = {
    "units": _set(units=10**9),
    "filters": _set(filters=10**9),
    "pixels": _unbuilt(batch_shape=[None, 10**5, 10**5, 3]),
    "two wide layers": _unbuilt(units=10**5),
    "false build config": _false_build_config,
    "before a refused layer": _giant_before_code,
}


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("kind", GIANTS)
def test_another_model_larger_than_its_file_is_refused_before_it_is_built(
    tmp_path, kind, functional
):
    path = tmp_path / "m.keras"
    stack = [
        layers.Input((8, 8, 3)), layers.RandomFlip(), layers.Conv2D(4, 3), layers.Flatten(),
        layers.Normalization(), layers.Dense(6), layers.Dense(2),
    ]  # fmt: skip
    model = keras.Sequential(stack)
    if functional:
        model = keras.Model(model.inputs, model.outputs)
    model.save(path)
    assert checkpoint.load(path).count_params() == model.count_params()

    def change(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        GIANTS[kind](config)
        return json.dumps(config).encode()

    _rewrite(path, change)
    with pytest.raises(InvalidModel, match=r"claims to hold|axis -1 .* to have value 10000000"):
        checkpoint.load(path)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize(
    "layer", [layers.UpSampling2D(10**5), layers.ZeroPadding2D(10**5), layers.UpSampling2D(3000)]
)
def test_a_layer_that_computes_giant_tensors_is_refused(tmp_path, layer, functional, nested):
    stack = [layers.Input((8, 8, 3)), layer.__class__.from_config(layer.get_config())]
    inner = keras.Sequential([*stack, layers.GlobalAveragePooling2D()])
    if functional:
        inner = keras.Model(inner.inputs, inner.outputs)
    model = keras.Sequential([layers.Input((8, 8, 3)), inner]) if nested else inner
    model.save(tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match=r"a layer computes [0-9,]+ numbers|claims to hold"):
        checkpoint.load(tmp_path / "m.keras")


def test_a_cct_whose_attention_would_be_giant_is_refused(tiny, tmp_path):
    spec = dataclasses.replace(tiny.spec, image_size=2048, positional="none")
    checkpoint.save(CCT(spec), tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match="a layer computes"):
        checkpoint.load(tmp_path / "m.keras")


def test_counting_the_weights_of_a_file_leaves_no_state_in_keras(tmp_path):
    path = _classifier_file(tmp_path)
    checkpoint.load(path)
    before = keras.Sequential([layers.Dense(1)]).name
    checkpoint.load(path)
    with keras.StatelessScope():
        pass
    after = keras.Sequential([layers.Dense(1)]).name
    number = [int(name.partition("_")[2] or 0) for name in (before, after)]
    assert number[1] - number[0] == 1


def test_a_lambda_layer_is_refused_and_never_executed(tmp_path):
    marker = tmp_path / "executed"
    marker_name = str(marker)  # Keras saves the values that a lambda captures
    path = tmp_path / "m.keras"
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Flatten(),
            layers.Lambda(lambda x: (__import__("pathlib").Path(marker_name).touch(), x)[1]),
            layers.Dense(2),
        ]
    )
    model.save(path)
    marker.unlink()
    with pytest.raises(InvalidModel, match=r"Python code.*never run: replace it by a layer"):
        checkpoint.load(path)
    assert not marker.exists()
    keras.saving.load_model(path, safe_mode=False)
    assert marker.exists(), "the payload of this test does nothing"


CALLABLES = {
    "a function of a module": {
        "module": "other_code", "class_name": "function", "config": "harmless",
        "registered_name": "harmless",
    },
    "a builtin": {
        "module": "builtins", "class_name": "function", "config": "exec",
        "registered_name": "function",
    },
    "a class of a module": {
        "module": "other_code", "class_name": "Harmless", "config": {},
        "registered_name": "Harmless",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_callable_of_another_module_is_refused_and_its_module_never_imported(
    tmp_path, monkeypatch, kind
):
    marker = tmp_path / "executed"
    (tmp_path / "other_code.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "def harmless(x):\n    return x\n"
        "class Harmless:\n    def __call__(self, x):\n        return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = _classifier_file(tmp_path)

    def plant(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        config["config"]["layers"][-1]["config"]["activation"] = CALLABLES[kind]
        return json.dumps(config)

    _rewrite(path, plant)
    with pytest.raises(InvalidModel, match=r"m\.keras cannot be loaded"):
        checkpoint.load(path)
    assert not marker.exists()


def test_a_layer_class_that_is_not_registered_is_refused(tmp_path):
    class Own(layers.Layer):
        def call(self, x):
            return x

    path = tmp_path / "m.keras"
    keras.Sequential([layers.Input((8, 8, 3)), Own(), layers.Flatten(), layers.Dense(2)]).save(path)
    with pytest.raises(
        InvalidModel, match=r"a class Own, which is not of Keras: .*--import FILE\.py"
    ):
        checkpoint.load(path)


def _classifier_file(folder):
    path = Path(folder) / "m.keras"
    keras.Sequential([layers.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)]).save(path)
    return path


def test_a_classifier_of_keras_layers_is_loaded(tmp_path):
    model = checkpoint.load(_classifier_file(tmp_path))
    assert checkpoint.image_shape(model) == (8, 8, 3)
    assert checkpoint.labels(model) == ()


def test_what_keras_leaves_of_a_file_that_it_cannot_read_is_removed(
    monkeypatch, tmp_path, digits_model
):
    def fail(*arguments, **options):
        tempfile.mkdtemp()
        raise OSError("damaged")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(keras.saving, "load_model", fail)
    with pytest.raises(InvalidModel, match="damaged"):
        checkpoint.load(digits_model)
    assert not list(tmp_path.iterdir())
    assert tempfile.tempdir == str(tmp_path)
