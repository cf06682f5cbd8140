"""SavedModels: the example as saved by Keras 2, and malicious programs; the Hub."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from kinds_of_models import KINDS, outputs
from linked import python_with

import cct_export
from cct_export.errors import InvalidModel, MissingDependency
from cct_export.importers.location import fetch_from_hub, is_hub_id
from cct_export.importers.preprocessing import pixels_warning, scales_pixels
from cct_export.importers.source import load_model

PROGRAM = Path(__file__).with_name("keras2_example.py")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with tf_keras, which is Keras 2."""
    folder = tmp_path_factory.mktemp("keras2") / "venv"
    return python_with(folder, "tf_keras", module="tf_keras")


@pytest.fixture(scope="module", params=["weight", "constant", "relu"])
def saved(request, python, tmp_path_factory):
    """The example's SavedModel: positions of either kind, or ReLU; images, and its logits."""
    folder = tmp_path_factory.mktemp(request.param)
    done = subprocess.run(
        [python, PROGRAM, folder, request.param], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "logits.npz") as content:
        return request.param, folder / "saved", content["images"], content["logits"]


@pytest.mark.slow
@pytest.mark.keras2
def test_the_example_saved_by_keras_2_gives_its_logits(saved, tmp_path):
    kind, folder, images, expected = saved
    assert np.ptp(expected, axis=0).min() > 1e-3
    imported = cct_export.import_model(folder, output=tmp_path / "m.keras")
    assert (imported.tensors, imported.parameters) == (41, 416_331)
    assert imported.images == 8
    assert imported.difference < 1e-4
    assert ("ReLU in the MLP" if kind == "relu" else "exact GELU") in imported.notes
    assert any("constant of its graph" in note for note in imported.notes) == (kind == "constant")
    model = cct_export.load(tmp_path / "m.keras").model
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.keras2
@pytest.mark.parametrize("saved", ["constant"], indirect=True)
def test_a_saved_model_is_exported_directly(saved, tmp_path):
    _, folder, _, _ = saved
    exported = cct_export.export_tflite(folder, output=tmp_path / "m.tflite", parity_samples=8)
    assert exported.parity.passed
    assert cct_export.verify(tmp_path / "m.tflite", samples=8).passed


@pytest.mark.slow
@pytest.mark.keras2
@pytest.mark.parametrize("saved", ["weight"], indirect=True)
@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_damaged_saved_model_is_refused(saved, tmp_path, part, share):
    folder = shutil.copytree(saved[1], tmp_path / "saved")
    content = (folder / part).read_bytes()
    (folder / part).write_bytes(content[: int(share * len(content))])
    with pytest.raises(InvalidModel, match="saved") as refused:
        load_model(str(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.keras2
@pytest.mark.parametrize("saved", ["weight"], indirect=True)
def test_a_saved_model_without_its_weights_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved[1], tmp_path / "saved")
    shutil.rmtree(folder / "variables")
    with pytest.raises(InvalidModel, match="has no readable weights"):
        load_model(str(folder))


class Writes(tf.Module):
    """A classifier that writes a file when it is run."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.kernel = tf.Variable(tf.ones((12, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 3), tf.float32, "image")])
    def __call__(self, image):
        tf.io.write_file(self.path, "executed")
        return {"logits": tf.reshape(image, (-1, 12)) @ self.kernel}


def test_a_saved_model_that_does_more_than_compute_is_neither_loaded_nor_run(
    tmp_path, in_process, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    module = Writes(str(tmp_path / "executed"))
    signature = module.__call__.get_concrete_function()
    tf.saved_model.save(module, "saved", signatures=signature)
    before = sorted(tmp_path.rglob("*"))
    ended = in_process("export", "import", "saved")
    assert ended.code == 1
    assert "saved is not run: it has what no image classifier needs (WriteFile)" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    # The program works: run without these checks, it writes the file.
    tf.saved_model.load("saved").signatures["serving_default"](tf.zeros((1, 2, 2, 3)))
    assert (tmp_path / "executed").exists()


class Function(tf.Module):
    """A program around a function of images of 2×2 pixels."""

    def __init__(self, function):
        super().__init__()
        self.kernel = tf.Variable(tf.range(12.0) - 3)
        self.function = function

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 3), tf.float32, "image")])
    def __call__(self, image):
        return {"outputs": self.function(tf.reshape(image, (-1, 12)) * self.kernel)}

    def save(self, folder):
        """Writes a SavedModel; returns its path."""
        signature = self.__call__.get_concrete_function()
        tf.saved_model.save(self, str(folder), signatures=signature)
        return str(folder)


def test_a_program_without_keras_is_a_model(tmp_path):
    source = Function(lambda x: tf.nn.softmax(x[:, :5])).save(tmp_path / "saved")
    images = np.random.default_rng(0).random((3, 2, 2, 3), np.float32)
    expected = tf.saved_model.load(source).signatures["serving_default"](tf.constant(images))
    (logits,) = outputs(load_model(source).model, images)
    np.testing.assert_allclose(logits, expected["outputs"], rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x[0], r"it maps \[\(None, 2, 2, 3\)\] to \[\(12,\)\]"),
        (lambda x: tf.reduce_sum(tf.zeros((10**9, 1)) + x[:1, :1], 0), "computes 1,000,000,000"),
        (lambda x: tf.cast(tf.cast(x, tf.float16) * 2, tf.float32), r"float16, .* as \.keras"),
    ],
    ids=["no batch", "giant", "half"],
)
def test_a_program_that_is_no_classifier_or_too_large_is_refused(function, reason, tmp_path):
    source = Function(function).save(tmp_path / "saved")
    with pytest.raises(InvalidModel, match=reason) as refused:
        load_model(source)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["plain", "dict_of_one_output", "subclassed", "batch_of_four"])
def test_what_keras_3_exports_is_a_model(kind, tmp_path):
    model = KINDS[kind]()
    model.export(tmp_path / "saved", verbose=False)
    loaded = load_model(str(tmp_path / "saved"))
    np.testing.assert_allclose(outputs(loaded.model)[0], outputs(model)[0], atol=1e-4)
    assert loaded.source == str(tmp_path / "saved")


ENDS = {
    "softmax": (lambda x: tf.nn.softmax(x[:, :5]), "softmax"),
    "sigmoid": (lambda x: tf.squeeze(tf.nn.sigmoid(x[:, :5])[:, tf.newaxis], 1), "sigmoid"),
    "slots": (lambda x: tf.nn.softmax(tf.reshape(x, (-1, 3, 4))), "softmax"),
    "slots, then flat": (
        lambda x: tf.reshape(tf.nn.softmax(tf.reshape(x, (-1, 3, 4))), (-1, 12)), "",
    ),
    "softmax over the slots": (lambda x: tf.nn.softmax(tf.reshape(x, (-1, 3, 4)), axis=1), ""),
    "double precision": (
        lambda x: tf.cast(tf.nn.sigmoid(tf.cast(x, tf.float64)), tf.float32), "sigmoid",
    ),
    "matrix product": (lambda x: x @ tf.ones((12, 3)), "none"),
    "log-softmax": (tf.nn.log_softmax, "none"),
    "tanh": (tf.tanh, ""),
    "scaled probabilities": (lambda x: 2 * tf.nn.softmax(x), ""),
}  # fmt: skip


@pytest.mark.parametrize(("function", "activation"), ENDS.values(), ids=ENDS)
def test_the_last_operator_says_what_an_output_is(function, activation, tmp_path):
    (output,) = load_model(Function(function).save(tmp_path / "saved")).outputs
    assert output.activation == activation


def test_every_output_of_a_keras_export_has_its_own_activation(tmp_path):
    image = keras.Input((8, 8, 3))
    x = layers.Flatten()(image)
    heads = {"z": "softmax", "a": "sigmoid", "m": None}
    outputs = {name: layers.Dense(3, activation=each)(x) for name, each in heads.items()}
    keras.Model(image, outputs).export(tmp_path / "saved", verbose=False)
    loaded = load_model(str(tmp_path / "saved"))
    found = {output.name: output.activation for output in loaded.outputs}
    assert found == {"z": "softmax", "a": "sigmoid", "m": "none"}


LOOP = [layers.Reshape((8, 30)), layers.LSTM(24), layers.Reshape((4, 6, 1))]
FRONTS = {
    "nothing": ((), False),
    "Rescaling": ([layers.Rescaling(1 / 255)], True),
    "Normalization": ([layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0] * 3)], True),
    "BatchNormalization": ([layers.BatchNormalization()], True),
    "reversed channels": ([lambda x: x[..., ::-1]], False),
    "resizing": ([layers.Resizing(16, 16)], False),
    "padding": ([layers.ZeroPadding2D(2)], False),
    "convolution, then Rescaling": ([layers.Conv2D(3, 3), layers.Rescaling(1 / 255)], False),
    "Rescaling, then a loop": ([layers.Rescaling(1 / 255), *LOOP], True),
    "loop": (LOOP, None),
}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(("front", "scales"), FRONTS.values(), ids=FRONTS)
def test_scaling_in_front_of_the_first_weights_of_a_program_is_found(
    front, scales, dtype, tmp_path
):
    image = keras.Input((8, 10, 3), dtype=dtype)
    head = [layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(), layers.Dense(4)]
    x = keras.ops.cast(image, "float32")
    for layer in [*front, *head]:
        x = layer(x)
    keras.Model(image, x).export(tmp_path / "saved", verbose=False)
    model = load_model(str(tmp_path / "saved")).model
    assert scales_pixels(model) is scales
    assert ("no layer scales the pixels" in pixels_warning(model)) == (scales is False)


def test_of_a_program_without_matrices_it_cannot_be_told_whether_it_scales(tmp_path):
    model = load_model(Function(lambda x: x[:, :5]).save(tmp_path / "saved")).model
    assert scales_pixels(model) is None
    assert pixels_warning(model).startswith("it cannot be told whether saved scales pixels")


@pytest.mark.parametrize(
    "front",
    [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomZoom(0.1), "stateful"],
    ids=lambda front: getattr(front, "name", front),
)
def test_a_program_that_draws_random_numbers_is_refused_with_what_to_do(front, tmp_path):
    if front == "stateful":
        Function(lambda x: x + tf.random.uniform((12,))).save(tmp_path / "saved")
    else:
        model = keras.Sequential(
            [keras.Input((8, 8, 3)), front, layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)]
        )
        model.export(tmp_path / "saved", verbose=False)
    with pytest.raises(InvalidModel) as refused:
        load_model(str(tmp_path / "saved"))
    assert str(refused.value) == (
        f"{tmp_path / 'saved'} draws random numbers when it is run: augmentation was exported with "
        "it; export the .keras file, or the model without augmentation"
    )


def test_a_program_that_assigns_its_variables_is_refused(tmp_path):
    count = tf.Variable(0.0)
    module = Function(lambda x: x + count.assign_add(1.0))
    module.count = count
    with pytest.raises(InvalidModel, match="saved assigns variables when it is run, so"):
        load_model(module.save(tmp_path / "saved"))


def test_random_numbers_of_training_alone_do_not_matter(tmp_path):
    module = Function(lambda x: x[:, :3])
    spec = [tf.TensorSpec((None, 12), tf.float32)]
    module.training = tf.function(lambda x: x + tf.random.uniform((12,)), input_signature=spec)
    assert load_model(module.save(tmp_path / "saved")).classes == 3


def test_checking_shapes_is_arithmetic(tmp_path):
    source = Function(lambda x: tf.ensure_shape(tf.tan(x), (None, 12))).save(tmp_path / "saved")
    assert load_model(source).classes == 12


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((None, None, 3), r"saved takes images of any size, .*keras.Input\(\(height, width, 3\)\)"),
        ((28, 24), r"saved takes images without a channel axis, .*keras.Input\(\(28, 24, 1\)\)"),
        ((5,), r"saved is not an image classifier: it takes \[\(None, 5\)\]"),
    ],
    ids=str,
)
def test_other_inputs_of_a_program_are_refused_with_what_to_do(shape, said, tmp_path):
    function = tf.function(
        lambda x: {"outputs": tf.reduce_max(x, axis=list(range(1, len(shape) + 1)))[:, None]},
        input_signature=[tf.TensorSpec((None, *shape), tf.float32, "image")],
    )
    module = tf.Module()
    module.kernel = tf.Variable(tf.ones(3))
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=function)
    with pytest.raises(InvalidModel, match=said):
        load_model(str(tmp_path / "saved"))


def test_a_program_that_is_no_cct_is_not_imported_but_exported(tmp_path):
    source = Function(lambda x: x[:, :5]).save(tmp_path / "saved")
    with pytest.raises(InvalidModel, match=r"is no CCT .*: export it as it is"):
        cct_export.import_model(source, output=tmp_path / "m.keras")


def test_hub_ids_are_distinguished_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("hf:somebody/cct")
    assert is_hub_id("keras-io/cct")
    for other in ("runs/cct", "somebody/cct", "hf:cct", "keras-io/cct/more", "hf:../.."):
        assert not is_hub_id(other), other
    (tmp_path / "keras-io" / "cct").mkdir(parents=True)
    assert not is_hub_id("keras-io/cct")


@pytest.mark.slow
def test_an_unreachable_hub_is_reported_soon_and_in_one_line(cct_export, tmp_path):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    ended = cct_export(
        "import", "hf:somebody/cct", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=tmp_path / "cache"
    )
    assert ended.returncode == 1, ended.stderr
    assert "somebody/cct could not be fetched from the Hub: " in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["README.md"], "a single model that can be read: none"),
        (
            ["a.keras", "b.safetensors"],
            "a single model that can be read: a.keras, b.safetensors",
        ),
        (["a.safetensors", "README.md"], None),
        (["saved_model.pb", "a.keras"], None),
    ],
)
def test_the_model_in_a_repository_is_found(tmp_path, monkeypatch, files, reason):
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(library, "snapshot_download", lambda *_, **__: os.fspath(tmp_path))
    if reason:
        with pytest.raises(InvalidModel, match=reason):
            fetch_from_hub("hf:somebody/cct")
    else:
        expected = tmp_path if "saved_model.pb" in files else tmp_path / files[0]
        assert fetch_from_hub("hf:somebody/cct") == expected


@pytest.mark.parametrize(
    ("library", "source", "extra"),
    [
        ("torch", "m.pth", "torch"),
        ("safetensors", "m.safetensors", "safetensors"),
        ("huggingface_hub", "hf:somebody/cct", "hub"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, library, source, extra):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pth").touch()
    (tmp_path / "m.safetensors").touch()
    for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=rf"{library} is not .*cct-export\[{extra}\]"):
        load_model(source)
