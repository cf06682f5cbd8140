"""The model that is traced: without augmentation, with the same logits."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

from cct_export.errors import ConversionError
from cct_export.formats.traced import inference_model
from cct_export.model.cct import CCT

SHAPE = (12, 12, 3)
IMAGES = np.random.default_rng(0).integers(20, 200, (3, *SHAPE)).astype(np.float32)


def _layers(model):
    """Returns all layers, those of nested models too."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _kinds(model):
    return {type(layer).__name__ for layer in _layers(model)}


def _head(x):
    return layers.Dense(4)(layers.Flatten()(layers.Conv2D(3, 3)(x)))


def _assert_same_logits(model, images=IMAGES):
    inference = inference_model(model)
    expected = np.asarray(model(images, training=False))
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(inference(images, training=False), expected)
    np.testing.assert_array_equal(inference(images, training=True), expected)
    return inference


def test_a_cct_keeps_all_its_layers(small_spec):
    model = CCT(small_spec)
    inference = inference_model(model)
    assert _kinds(model) == _kinds(inference)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(
        inference(images, training=False), model(images, training=False), atol=1e-6
    )
    assert inference.input_shape == model.input_shape


def test_weights_are_shared_and_the_model_is_not_modified(small_spec):
    model = CCT(small_spec)
    before = _kinds(model)
    inference = inference_model(model)
    assert [id(w) for w in inference.weights] == [id(w) for w in model.weights]
    assert _kinds(model) == before


def _nested():
    image = keras.Input(SHAPE)
    augmentation = keras.Sequential(
        [layers.Rescaling(1 / 255), layers.RandomFlip(), layers.RandomRotation(0.1)]
    )
    return keras.Model(image, _head(augmentation(image)))


def _sequential():
    return keras.Sequential(
        [
            layers.Input(SHAPE),
            layers.RandomFlip(),
            layers.Rescaling(1 / 255),
            layers.RandomZoom(0.2),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


def _deeply_nested():
    inner = keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 255)])
    x = keras.Input(SHAPE)
    middle = keras.Model(x, layers.RandomContrast(0.1)(inner(x)))
    return keras.Sequential([layers.Input(SHAPE), middle, layers.Flatten(), layers.Dense(4)])


def _branched():
    image = keras.Input(SHAPE)
    x = layers.RandomFlip()(image)
    shared = layers.Conv2D(3, 3, padding="same")
    x = layers.Add()([shared(x), shared(layers.Rescaling(1 / 255)(x)), image])
    return keras.Model(image, _head(layers.RandomBrightness(0.1)(x)))


def _backbone():
    image = keras.Input(SHAPE)
    x = layers.RandomFlip()(image)
    backbone = keras.Model(image, layers.Conv2D(4, 3)(x))
    image = keras.Input(SHAPE)
    return keras.Model(image, _head(backbone(layers.Rescaling(1 / 127.5, -1)(image))))


@pytest.mark.parametrize("build", [_nested, _sequential, _deeply_nested, _branched, _backbone])
def test_augmentation_is_removed_at_any_depth(build):
    model = build()
    assert any(kind.startswith("Random") for kind in _kinds(model))
    inference = _assert_same_logits(model)
    assert not any(kind.startswith("Random") for kind in _kinds(inference))


def test_a_crop_that_changes_the_size_stays():
    # Keras crops while training only, so the layers after it must take any size.
    parts = [layers.RandomCrop(8, 8), layers.GlobalAveragePooling2D(), layers.Dense(4)]
    model = keras.Sequential([layers.Input(SHAPE), *parts])
    inference = inference_model(model)
    assert "RandomCrop" in _kinds(inference)
    np.testing.assert_array_equal(inference(IMAGES, training=False), model(IMAGES, training=False))


def _image_layers():
    """Every Keras layer that preprocesses images and has no other input."""
    arguments = {"RandomCrop": (12, 12), "RandomTranslation": (0.2, 0.2), "RandomPosterization": ()}
    for name, kind in sorted(inspect.getmembers(layers, inspect.isclass)):
        # Boxes are not images; Equalization cannot be built into a model (keras 3.15).
        if "image_preprocessing" not in kind.__module__ or name in (
            "MaxNumBoundingBoxes", "Equalization"
        ):  # fmt: skip
            continue
        candidates = [arguments[name]] if name in arguments else [(), (0.5,), (4,), (10, 10)]
        for values in candidates:
            try:
                kind(*values)
            except (TypeError, ValueError):
                continue
            yield pytest.param(kind, values, id=name)
            break


IMAGE_LAYERS = list(_image_layers())


def test_keras_still_has_these_image_layers():
    assert len(IMAGE_LAYERS) >= 10


@pytest.mark.parametrize(("kind", "arguments"), IMAGE_LAYERS)
def test_layers_that_change_images_at_inference_stay(kind, arguments):
    image = keras.Input(SHAPE)
    layer = kind(*arguments)
    model = keras.Model(image, layer(image))
    expected = np.asarray(model(IMAGES, training=False))
    inference = inference_model(model)
    np.testing.assert_array_equal(inference(IMAGES, training=False), expected)
    random = kind.__name__.startswith(("Rand", "Aug", "Mix", "Cut"))
    assert (kind.__name__ not in _kinds(inference)) == random


def test_a_subclassed_model_is_refused_by_name():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ConversionError, match=r"Own is a subclassed model.*functional"):
        inference_model(Own())
