"""The ``.weights.h5`` of the published keras.io example."""

import re

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from published import published_example, randomised

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.importers import keras_io
from cct_export.importers.source import load_model
from cct_export.model.cct import CCT
from cct_export.specs import ImportSpec, ModelSpec

IMAGES = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)


def _assert_same(imported, example):
    expected = example(IMAGES, training=False)
    assert np.ptp(expected, axis=0).min() > 1e-3, "the logits of the images must differ"
    np.testing.assert_allclose(imported(IMAGES, training=False), expected, rtol=1e-5, atol=1e-5)


def test_the_example_of_these_tests_has_the_published_size():
    assert published_example().count_params() == 416_331


def test_a_checkpoint_of_the_examples_callback_gives_its_logits(tmp_path):
    keras.backend.clear_session()
    path = tmp_path / "checkpoint.weights.h5"
    example = randomised(published_example())
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    example.compile("adamw", loss, run_eagerly=True)
    callback = keras.callbacks.ModelCheckpoint(
        path, monitor="loss", save_best_only=True, save_weights_only=True
    )
    example.fit(IMAGES, np.eye(10)[:4], epochs=1, callbacks=[callback], verbose=0)
    with h5py.File(path) as file:
        assert "optimizer" in file
    loaded = load_model(str(path))
    _assert_same(loaded.model, example)
    assert loaded.source == str(path)
    assert loaded.data is None


def test_the_second_model_of_a_process_is_read_too(tmp_path):
    published_example()
    example = randomised(published_example())
    example.save_weights(tmp_path / "x.weights.h5")
    _assert_same(keras_io.load_weights(tmp_path / "x.weights.h5", ImportSpec()).model, example)


def _shift_counters(group, by):
    """Renames ``dense``, ``dense_1`` to ``dense_9``, ``dense_10`` and so on."""
    kinds = r"(conv2d|dense|layer_normalization|multi_head_attention|sequence_pooling|position_.*?)"
    matches = [re.fullmatch(kinds + r"(?:_(\d+))?", name) for name in group]
    for match in sorted(filter(None, matches), key=lambda m: -int(m[2] or 0)):
        group.move(match[0], f"{match[1]}_{int(match[2] or 0) + by}")


@pytest.mark.parametrize("by", [1, 9, 98])
def test_the_counters_in_the_names_do_not_matter(tmp_path, by):
    # Keras 3.15 numbers layers within a model; others carry on over the whole process.
    example = randomised(published_example())
    example.save_weights(tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5", "a") as file:
        _shift_counters(file["layers"], by)
        _shift_counters(file["layers/cct_tokenizer/conv_model/layers"], by)
        assert f"dense_{by + 4}" in file["layers"]
        assert f"layer_normalization_{by}" in file["layers"]
    _assert_same(keras_io.load_weights(tmp_path / "x.weights.h5", ImportSpec()).model, example)


def test_the_number_of_classes_is_read_from_the_file(tmp_path):
    example = randomised(published_example(classes=100))
    example.save_weights(tmp_path / "x.weights.h5")
    imported = keras_io.load_weights(tmp_path / "x.weights.h5", ImportSpec()).model
    assert imported.output_shape == (None, 100)
    _assert_same(imported, example)


def _convnet():
    parts = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return keras.Sequential([layers.Input((32, 32, 3)), *parts])


CHANGED = {
    "one block more": lambda: published_example(blocks=3),
    "one block less": lambda: published_example(blocks=1),
    "no positions": lambda: published_example(positional=False),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_weights_of_another_cct_of_the_example_give_its_logits(tmp_path, kind):
    example = randomised(CHANGED[kind]())
    example.save_weights(tmp_path / "x.weights.h5")
    loaded = load_model(str(tmp_path / "x.weights.h5")).model
    assert isinstance(loaded, CCT)
    _assert_same(loaded, example)


OTHERS = {
    "a convolutional network": _convnet,
    "a CCT of this package": lambda: CCT(
        ModelSpec(filters=(4, 8), heads=1, head_dim=4, mlp_units=(8, 8))
    ),
    "no weights at all": lambda: keras.Sequential([layers.Input((4,)), layers.Flatten()]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path, kind):
    OTHERS[kind]().save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(
        InvalidModel, match=r"x\.weights\.h5 does not hold the keras\.io example's weights"
    ) as refused:
        load_model(str(tmp_path / "x.weights.h5"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", [0, 0.5, 0.95])
def test_a_truncated_hdf5_file_is_refused(tmp_path, part):
    path = tmp_path / "x.weights.h5"
    published_example().save_weights(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(InvalidModel, match="is not a readable HDF5 file"):
        load_model(str(path))


def test_a_text_file_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "x.weights.h5").write_text("not HDF5")
    with pytest.raises(InvalidModel, match="is not a readable HDF5 file"):
        load_model(str(tmp_path / "x.weights.h5"))
    with pytest.raises(InvalidRequest, match="no such model file"):
        load_model(str(tmp_path / "none.weights.h5"))
