"""Zeros around a map of negative values, and a max pool of them, in ONNX Runtime."""

import keras
import numpy as np
import pytest
from keras import layers

import cct_export


@pytest.mark.parametrize("activation", ["silu", "mish"], ids=["lowered", "traced"])
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_zero_is_the_largest_of_negative_values(tmp_path, activation, format):
    image = keras.Input((12, 12, 3))
    convolution = layers.Conv2D(4, 3, bias_initializer=keras.initializers.Constant(-1.0))
    x = layers.Activation(activation)(convolution(layers.Rescaling(1 / 255)(image)))
    x = layers.MaxPooling2D(3, 2, "same")(layers.ZeroPadding2D(1)(x))
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    for weight in model.trainable_weights:
        random = np.random.default_rng(len(weight.shape))
        weight.assign(weight + random.normal(0, 0.1, weight.shape))
    padded = keras.Model(image, model.layers[-3].input)
    assert np.asarray(padded(np.full((1, 12, 12, 3), 99.0))).min() < 0
    export = {"onnx": cct_export.export_onnx, "tflite": cct_export.export_tflite}[format]
    exported = export(model, output=tmp_path / f"m.{format}", parity_samples=16)
    assert exported.parity.sqnr_db > 90
