"""Whole models in ``.h5`` files, and files that Keras 2 wrote."""

import json
import subprocess
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from kinds_of_models import SHAPE, outputs, plain, sequential, under
from linked import python_with

import cct_export
from cct_export.errors import InvalidModel
from cct_export.importers.source import load_model

PROGRAM = Path(__file__).with_name("keras2_classifiers.py")
KERAS_2_MODELS = (
    "application",
    "attention",
    "bare_sequential",
    "functions",
    "heads",
    "mixed",
    "preprocessed",
    "recurrent",
    "several_kinds",
    "teachable_machine",
)


@pytest.mark.parametrize("name", ["m.h5", "m.H5", "m.hdf5"])
@pytest.mark.parametrize("build", [plain, sequential, lambda: under("mixed_float16")])
def test_a_whole_model_of_keras_3_is_read_from_hdf5(build, name, tmp_path):
    model = build()
    model.save(tmp_path / "m.h5")
    path = (tmp_path / "m.h5").rename(tmp_path / name)
    (logits,), (expected,) = outputs(load_model(str(path)).model), outputs(model)
    np.testing.assert_allclose(logits, expected, atol=0.01)


def _as_keras_2(path, change):
    """Makes an ``.h5`` file of Keras 2 of one of Keras 3, in which ``change`` edits the layers."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"]["layers"])
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"


def _depthwise():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )


def _in_words_of_keras_2(saved):
    image, convolution, norm, *_ = saved
    image["config"]["batch_input_shape"] = image["config"].pop("batch_shape")
    convolution["config"]["groups"] = 1
    norm["config"]["axis"] = [3]


def test_settings_of_keras_2_that_change_nothing_are_taken(tmp_path):
    model = _depthwise()
    model.save(tmp_path / "m.h5")
    _as_keras_2(tmp_path / "m.h5", _in_words_of_keras_2)
    (logits,), (expected,) = outputs(load_model(str(tmp_path / "m.h5")).model), outputs(model)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def _call(function, **arguments):
    def change(saved):
        _in_words_of_keras_2(saved)
        config = {"name": "tf.call", "function": function, "dtype": "float32", "trainable": True}
        saved[3:3] = [{"class_name": "TFOpLambda", "config": config}]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            _call("image.sobel_edges"),
            r"tf\.call calls tf\.image\.sobel_edges, which is no layer of Keras 3: save the model "
            "as a SavedModel",
        ),
        (
            lambda saved: saved[2]["config"].update(renorm=True),
            "Keras 3 has no renorm of True for BatchNormalization",
        ),
        (
            lambda saved: saved[2].update(class_name="GroupWhitening"),
            "it has a .* GroupWhitening, which is not of Keras: .*--import",
        ),
    ],
)
def test_what_keras_3_has_not_is_named(change, reason, tmp_path):
    _depthwise().save(tmp_path / "m.h5")
    _as_keras_2(tmp_path / "m.h5", change)
    with pytest.raises(InvalidModel, match=reason) as refused:
        load_model(str(tmp_path / "m.h5"))
    assert "\n" not in str(refused.value)


def test_weights_alone_are_refused_with_what_to_save(tmp_path):
    path = tmp_path / "m.weights.h5"
    plain().save_weights(path)
    with pytest.raises(InvalidModel, match=r"holds weights without their architecture: .*\.keras"):
        load_model(str(path.rename(tmp_path / "m.h5")))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(share, tmp_path):
    path = tmp_path / "m.h5"
    plain().save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InvalidModel, match=r"m\.h5 is not a readable HDF5 file") as refused:
        load_model(str(path))
    assert "\n" not in str(refused.value)


def test_code_in_hdf5_is_never_run(tmp_path):
    marker = str(tmp_path / "run")
    code = lambda x: (Path(marker).touch(), x)[1]  # noqa: E731
    sequential(layers.Lambda(code, output_shape=SHAPE)).save(tmp_path / "m.h5")
    Path(marker).unlink(missing_ok=True)
    with pytest.raises(InvalidModel, match=r"it holds Python code \(a Lambda layer"):
        load_model(str(tmp_path / "m.h5"))
    assert not Path(marker).exists()


def test_an_architecture_larger_than_its_file_is_refused_before_it_is_built(tmp_path):
    _depthwise().save(tmp_path / "m.h5")
    _as_keras_2(tmp_path / "m.h5", lambda saved: saved[-1]["config"].update(units=10**9))
    with pytest.raises(InvalidModel, match="bytes and claims to hold"):
        load_model(str(tmp_path / "m.h5"))


@pytest.fixture(scope="module")
def keras_2(tmp_path_factory):
    """A folder of models that Keras 2 saved, each as .h5, .keras and SavedModel, with logits."""
    folder = tmp_path_factory.mktemp("keras2")
    python = python_with(folder / "venv", "tf_keras", module="tf_keras")
    done = subprocess.run(
        [python, PROGRAM, folder, *KERAS_2_MODELS], capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.keras2
@pytest.mark.parametrize("suffix", [".h5", ".keras", "-saved"])
@pytest.mark.parametrize("name", KERAS_2_MODELS)
def test_a_model_of_keras_2_gives_its_logits(keras_2, name, suffix):
    path = keras_2 / f"{name}{suffix}"
    if not path.exists():
        pytest.skip(f"Keras 2 cannot save this model as {suffix}")
    if (name, suffix) == ("mixed", "-saved"):
        with pytest.raises(InvalidModel, match=r"computes in float16, .* as \.keras"):
            load_model(str(path))
        return
    model = load_model(str(path)).model
    with np.load(keras_2 / f"{name}.npz") as content:
        expected = [content[key] for key in sorted(content.files) if key != "images"]
        logits = outputs(model, content["images"])
    for output, value in zip(logits, expected, strict=True):
        assert np.ptp(value, axis=0).max() > 0.005, "images that a wrong model tells apart"
        np.testing.assert_allclose(output, value, rtol=1e-4, atol=2e-3)


@pytest.mark.slow
@pytest.mark.keras2
@pytest.mark.parametrize("suffix", [".h5", "-saved"])
def test_a_model_of_keras_2_is_exported(keras_2, suffix, tmp_path):
    source = keras_2 / f"preprocessed{suffix}"
    for format in ("tflite", "onnx"):
        export = getattr(cct_export, f"export_{format}")
        assert export(source, output=tmp_path / f"m.{format}", parity_samples=8).parity.passed
