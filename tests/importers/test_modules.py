"""``--import``: Python files of the user's that define the layers of a model."""

import keras
import numpy as np
import pytest
from kinds_of_models import IMAGES, outputs

import cct_export
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.importers.modules import objects_of
from cct_export.importers.source import load_model
from cct_export.specs import ModelOptions

PARTS = """
import keras
from keras import layers, ops
from beside import FACTOR

class Scaled(layers.Layer):
    def call(self, x):
        return x * FACTOR

@keras.saving.register_keras_serializable("mine")
class Registered(layers.Layer):
    def call(self, x):
        return x + 1

def squared(x):
    return ops.square(x)

class Classifier(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.flatten, self.dense = layers.Flatten(), layers.Dense(5)

    def call(self, x):
        return self.dense(self.flatten(x / 255))

def model():
    parts = [Scaled(), Registered(), layers.Conv2D(4, 3, activation=squared)]
    head = [layers.Flatten(), layers.Dense(5)]
    return keras.Sequential([keras.Input((16, 16, 3)), layers.Rescaling(1/255), *parts, *head])
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    path = tmp_path / "parts.py"
    path.write_text(PARTS)
    yield path
    for name in [name for name in keras.saving.get_custom_objects() if name.startswith("mine>")]:
        del keras.saving.get_custom_objects()[name]


def _forget(name="mine>Registered"):
    """Makes Keras forget what an import registered, as a new process has."""
    keras.saving.get_custom_objects().pop(name, None)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_and_functions_of_a_module_are_known_by_their_names(module, tmp_path, suffix):
    model = objects_of([module])["model"]()
    model.save(tmp_path / f"m{suffix}")
    _forget()
    loaded = load_model(str(tmp_path / f"m{suffix}"), ModelOptions(modules=(module,)))
    np.testing.assert_allclose(outputs(loaded.model)[0], outputs(model)[0], rtol=1e-5)


def test_a_subclassed_model_of_a_module_is_loaded(module, tmp_path):
    model = objects_of([module])["Classifier"]()
    model(IMAGES)
    model.save(tmp_path / "m.keras")
    loaded = load_model(str(tmp_path / "m.keras"), ModelOptions(modules=(module,)))
    np.testing.assert_allclose(outputs(loaded.model)[0], np.asarray(model(IMAGES)), rtol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_without_it_the_layer_and_the_ways_out_are_named(module, tmp_path, suffix):
    objects_of([module])["model"]().save(tmp_path / f"m{suffix}")
    _forget()
    with pytest.raises(InvalidModel, match=r"it has a \w+ Scaled, .*--import FILE\.py.*Python API"):
        load_model(str(tmp_path / f"m{suffix}"))


def test_what_one_model_needed_another_does_not_know(module, tmp_path):
    objects_of([module])["model"]().save(tmp_path / "m.keras")
    load_model(str(tmp_path / "m.keras"), ModelOptions(modules=(module,)))
    with pytest.raises(InvalidModel, match="Scaled"):
        load_model(str(tmp_path / "m.keras"))


@pytest.mark.parametrize("command", ["tflite", "onnx", "export", "inspect"])
def test_commands_take_it(module, tmp_path, in_process, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    objects_of([module])["model"]().save("m.keras")
    _forget()
    samples = [] if command == "inspect" else ["--parity-samples", "8"]
    schemes = ["--quantize", "none"] if command == "export" else []
    ended = in_process("export", command, "m.keras", "--import", "parts.py", *samples, *schemes)
    assert ended.code == 0, ended.err


def test_a_file_is_verified_against_a_model_of_a_module(module, tmp_path, in_process, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects_of([module])["model"]().save("m.keras")
    options = ModelOptions(modules=(module,))
    cct_export.export_tflite("m.keras", parity_samples=8, options=options)
    _forget()
    alone = in_process("export", "verify", "m.tflite")
    assert alone.code == 1
    assert "it has a class Scaled" in alone.err
    assert "--import FILE.py" in alone.err
    assert len(alone.err.splitlines()) == 1
    told = in_process("export", "verify", "m.tflite", "--import", "parts.py", "--samples", "8")
    assert told.code == 0, told.err
    assert cct_export.verify("m.tflite", against="m.keras", options=options, samples=8).passed


@pytest.mark.slow
def test_a_model_of_a_module_is_measured_and_classifies(module, tmp_path, cct_export, cct_bench):
    from PIL import Image

    objects_of([module])["model"]().save(tmp_path / "m.keras")
    Image.fromarray(IMAGES[0].astype(np.uint8)).save(tmp_path / "0.png")
    told = ("--import", "parts.py")
    quick = ("--min-runs", 2, "--min-seconds", 0, "--warmup-seconds", 0)
    for ended in (
        cct_export("predict", "m.keras", "0.png", *told),
        cct_bench("keras", "m.keras", *told, *quick),
        cct_bench("tflite", "m.keras", *told, *quick),
        cct_bench("compare", "m.keras", *told, *quick),
    ):
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named"),
        ("1 +", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_run_is_refused_in_one_line(content, reason, tmp_path):
    path = tmp_path / "parts.py"
    path.write_text(content)
    with pytest.raises(InvalidModel, match=rf"parts\.py cannot be run, .*{reason}") as refused:
        objects_of([path])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone.py", "no such Python file"), ("m.txt", "is no Python file: --import takes one")],
)
def test_what_is_no_python_file_is_refused_before_keras_starts(name, reason, tmp_path):
    (tmp_path / "m.txt").touch()
    with pytest.raises(InvalidRequest, match=reason):
        cct_export.load("cct_keras_io", options=ModelOptions(modules=(tmp_path / name,)))
