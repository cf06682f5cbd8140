"""The architecture: parameters, shapes, inference, and saved files in other processes."""

import json
import math
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cct_export.model import checkpoint, layers
from cct_export.model.cct import CCT
from cct_export.model.presets import PRESETS, preset, shipped_checkpoint
from cct_export.specs import ModelSpec


def _randomised(model, seed=0):
    """Adds noise to every weight, so that a lost or swapped one shows."""
    random = np.random.default_rng(seed)
    model.set_weights([w + random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    return model


def _images(model, count=3, seed=0):
    shape = (count, *checkpoint.image_shape(model))
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def _logits(model, images):
    return np.asarray(model(images, training=False))


def test_the_preset_has_the_parameters_of_the_published_example():
    model = CCT(preset("cct_keras_io"))
    assert model.count_params() == 416_331
    assert len(model.weights) == 41
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)


def test_a_preset_has_the_name_in_its_spec():
    assert all(name == spec.name for name, spec in PRESETS.items())


@pytest.fixture(scope="module")
def model(small_spec):
    return _randomised(CCT(small_spec))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """A folder with a saved model, images and their logits."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoint.save(model, folder / "m.keras")
    np.save(folder / "images.npy", _images(model))
    np.save(folder / "logits.npy", _logits(model, _images(model)))
    return folder


LOAD = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1] + "/m.keras")
images = np.load(sys.argv[1] + "/images.npy")
np.save(sys.argv[2], np.asarray(model(images, training=False)))
"""


def _python(code, *arguments, backend="tensorflow"):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_saved_model_gives_the_same_logits_in_a_new_process(saved, tmp_path):
    done = _python("import cct_export.model.cct\n" + LOAD, saved, tmp_path / "l.npy")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "l.npy"), np.load(saved / "logits.npy"))


@pytest.mark.slow
def test_without_the_package_keras_names_the_missing_class(saved, tmp_path):
    done = _python(LOAD, saved, tmp_path / "l.npy")
    assert done.returncode != 0
    assert "cct_export>CCT" in done.stderr
    assert not (tmp_path / "l.npy").exists()


@pytest.mark.slow
def test_weights_of_tensorflow_give_the_same_logits_on_jax(saved, tmp_path):
    code = "import cct_export.model.cct\n" + LOAD + "print(keras.backend.backend())"
    done = _python(code, saved, tmp_path / "l.npy", backend="jax")
    assert done.stdout.strip() == "jax", done.stderr
    expected = np.load(saved / "logits.npy")
    assert np.ptp(expected) > 0.1
    assert np.abs(np.load(tmp_path / "l.npy") - expected).max() <= 1e-4


@pytest.mark.slow
def test_a_model_saved_on_jax_gives_the_same_logits_in_a_new_process(small_spec, tmp_path):
    make = """
import json, sys, numpy as np
from pathlib import Path
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
folder = Path(sys.argv[1])
random = np.random.default_rng(0)
model = CCT(json.loads(sys.argv[2]))
model.set_weights([w + random.normal(0, 0.2, w.shape) for w in model.get_weights()])
images = random.integers(0, 256, (3, 32, 32, 3)).astype("float32")
checkpoint.save(model, folder / "m.keras")
np.save(folder / "images.npy", images)
np.save(folder / "logits.npy", np.asarray(model(images, training=False)))
"""
    made = _python(make, tmp_path, json.dumps(small_spec.to_dict()), backend="jax")
    assert made.returncode == 0, made.stderr
    code = "import cct_export.model.cct\n" + LOAD
    done = _python(code, tmp_path, tmp_path / "l.npy", backend="jax")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "l.npy"), np.load(tmp_path / "logits.npy"))


def test_inference_is_deterministic_and_training_is_random(model):
    images = _images(model, 8)
    assert np.array_equal(_logits(model, images), _logits(model, images))
    first, second = (np.asarray(model(images, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, _logits(model, images))


def test_logits_do_not_depend_on_the_other_images_of_a_batch(model):
    images = _images(model, 4)
    single = np.concatenate([_logits(model, images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(_logits(model, images), single, atol=1e-5)


def test_a_model_is_rebuilt_from_its_configuration(model, small_spec):
    config = json.loads(json.dumps(model.get_config()))
    again = CCT.from_config(config)
    assert again.spec == small_spec
    assert again.get_config() == model.get_config()
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_a_frozen_model_stays_frozen(small_spec):
    frozen = CCT(small_spec)
    frozen.trainable = False
    assert CCT.from_config(frozen.get_config()).trainable_variables == []


def test_the_stochastic_depth_rate_rises_linearly_over_the_blocks():
    spec = ModelSpec(filters=(4,), layers=3, heads=1, head_dim=2, mlp_units=(4,))
    model = CCT(spec)
    rates = [model.get_layer(f"block_{i}").stochastic_depth for i in range(3)]
    assert rates == pytest.approx([0, 0.05, 0.1])


SPECS = st.builds(
    lambda filters, hidden, **rest: ModelSpec(
        filters=filters, mlp_units=(*hidden, filters[-1]), **rest
    ),
    filters=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    hidden=st.lists(st.integers(1, 6), max_size=1),
    image_size=st.integers(8, 20),
    channels=st.sampled_from([1, 3]),
    classes=st.integers(2, 5),
    kernel=st.integers(1, 3),
    layers=st.integers(0, 3),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 5),
    positional=st.sampled_from(["learnable", "none"]),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "m.keras"


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS)
def test_any_small_architecture_builds_and_survives_a_round_trip(scratch, spec):
    model = _randomised(CCT(spec))
    assert model.output_shape == (None, spec.classes)
    images = _images(model, 2)
    logits = _logits(model, images)
    assert logits.shape == (2, spec.classes)
    assert np.isfinite(logits).all()
    checkpoint.save(model, scratch)
    again = checkpoint.load(scratch)
    assert again.spec == spec
    assert np.array_equal(_logits(again, images), logits)
    tables = [w for w in model.weights if w.path.startswith("position_embedding")]
    assert len(tables) == (spec.positional == "learnable")


PAPER_SPECS = st.builds(
    lambda heads, head_dim, first, hidden, channels, normalized, **rest: ModelSpec(
        block="paper",
        heads=heads,
        head_dim=head_dim,
        filters=(*first, heads * head_dim),
        mlp_units=(hidden, heads * head_dim),
        channels=channels,
        mean=(0.4, 0.5, 0.6)[:channels] if normalized else (),
        std=(0.2, 0.3, 0.25)[:channels] if normalized else (),
        **rest,
    ),
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 4),
    first=st.lists(st.integers(1, 6), max_size=1),
    hidden=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    normalized=st.booleans(),
    image_size=st.integers(12, 20),  # less leaves some no window of 7 × 7
    classes=st.integers(2, 5),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 2),
    padding=st.integers(2, 3),
    layers=st.integers(0, 2),
    positional=st.sampled_from(["learnable", "sine", "none"]),
    stochastic_depth_mode=st.sampled_from(["sample", "sample-unscaled", "batch"]),
)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(spec=PAPER_SPECS)
def test_any_small_architecture_of_the_paper_survives_a_round_trip(scratch, spec):
    model = _randomised(CCT(spec))
    images = _images(model, 2)
    logits = _logits(model, images)
    assert logits.shape == (2, spec.classes)
    assert np.isfinite(logits).all()
    checkpoint.save(model, scratch)
    again = checkpoint.load(scratch)
    assert again.spec == spec
    assert [w.trainable for w in again.weights] == [w.trainable for w in model.weights]
    assert np.array_equal(_logits(again, images), logits)


def test_a_file_written_before_the_variants_is_loaded_as_the_same_model(tmp_path):
    """A shipped file lacks newer fields; they get the values that it was trained with."""
    path = shipped_checkpoint("cct_keras_io_example")
    with zipfile.ZipFile(path) as archive:
        fields = json.loads(archive.read("config.json"))["config"]["spec"]
    assert not fields.keys() & {
        "stride",
        "padding",
        "block",
        "mean",
        "std",
        "stochastic_depth_mode",
    }
    model = checkpoint.load(path)
    assert model.spec == replace(preset("cct_keras_io"), labels=model.spec.labels)
    images = _images(model, 4)
    logits = _logits(model, images)
    checkpoint.save(model, tmp_path / "again.keras")
    assert np.array_equal(_logits(checkpoint.load(tmp_path / "again.keras"), images), logits)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(12, 65), kernel=st.integers(1, 5), stages=st.integers(1, 2))
def test_the_number_of_tokens_follows_from_the_image_size(size, kernel, stages):
    side = size
    for _ in range(stages):
        side = math.ceil((side - kernel + 1 + 2) / 2)
    tokenizer = layers.ConvTokenizer([2, 3][:stages], kernel)
    shape = tokenizer.compute_output_shape((None, size, size, 3))
    assert shape == (None, side * side, [2, 3][stages - 1])


@pytest.mark.parametrize(("height", "width"), [(9, 9), (11, 14), (32, 32)])
def test_the_tokens_have_the_computed_shape(height, width):
    tokenizer = layers.ConvTokenizer([2, 3], 3)
    tokens = tokenizer(np.ones((2, height, width, 1), np.float32))
    assert tuple(tokens.shape) == (2, math.ceil(height / 2 / 2) * math.ceil(width / 2 / 2), 3)
    assert tuple(tokens.shape) == tokenizer.compute_output_shape((2, height, width, 1))
