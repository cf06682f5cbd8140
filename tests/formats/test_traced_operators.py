"""Every activation and the usual layers of Keras go through the stock converters into engines."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

from cct_export.errors import ConversionError
from cct_export.formats.traced import CONVERTERS, FINISHERS
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import run
from cct_export.specs import OPSETS, ExportSpec

FORMATS = ("tflite", "onnx")
each_format = pytest.mark.parametrize("format", FORMATS)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
# Activations that take more than the tensor, or change its shape.
OTHER_ACTIVATIONS = ("serialize", "deserialize", "get", "glu", "threshold")
ACTIVATIONS = [
    name
    for name, _ in inspect.getmembers(keras.activations, inspect.isfunction)
    if name not in OTHER_ACTIVATIONS
]


def tokens(x, width=8):
    return layers.Reshape((-1, width))(x)


LAYERS = {
    "PReLU": layers.PReLU(),
    "ReLU with slope, threshold and limit": layers.ReLU(2, 0.1, 0.5),
    "convolution, dilated": layers.Conv2D(8, 3, dilation_rate=2, padding="same"),
    "convolution, grouped": layers.Conv2D(8, 3, groups=2),
    "convolution, grouped and strided": layers.Conv2D(16, 3, strides=2, groups=4, padding="same"),
    "convolution, grouped and dilated": layers.Conv2D(8, 3, groups=8, dilation_rate=2),
    "convolution, depthwise": layers.DepthwiseConv2D(3, depth_multiplier=2),
    "convolution, depthwise and dilated": layers.DepthwiseConv2D(3, dilation_rate=2),
    "convolution, separable": layers.SeparableConv2D(8, 3),
    "convolution, transposed": layers.Conv2DTranspose(8, 3, strides=2),
    "convolution of one axis": lambda x: layers.Conv1D(6, 3, padding="causal")(tokens(x)),
    "squeeze and excite": lambda x: layers.Multiply()(
        [x, layers.Dense(8, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))]
    ),
    "upsampling": layers.UpSampling2D(interpolation="bilinear"),
    "average pooling": layers.AveragePooling2D(3, padding="same"),
    "adaptive pooling": layers.AdaptiveAveragePooling2D(4),
    "group normalization": layers.GroupNormalization(4),
    "unit normalization": layers.UnitNormalization(),
    "RMS normalization": layers.RMSNormalization(),
    "LSTM": lambda x: layers.LSTM(6)(tokens(x, 112)),
    "LSTM of both directions": lambda x: layers.Bidirectional(
        layers.LSTM(6, return_sequences=True)
    )(tokens(x, 112)),
    "LSTM, masked": lambda x: layers.LSTM(4)(layers.Masking()(tokens(x, 112))),
    "GRU of both directions": lambda x: layers.Bidirectional(layers.GRU(6))(tokens(x, 112)),
    "stacked cells": lambda x: layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)])(tokens(x, 112)),
    "attention": lambda x: layers.MultiHeadAttention(2, 4)(tokens(x), tokens(x)),
    "grouped-query attention": lambda x: layers.GroupQueryAttention(4, 4, 2)(tokens(x), tokens(x)),
    "additive attention": lambda x: layers.AdditiveAttention()([tokens(x), tokens(x)]),
    "erf": lambda x: x * (1 + ops.erf(x)),
    "log1p": lambda x: ops.log1p(ops.abs(x)),
    "expm1": ops.expm1,
    "patches": lambda x: ops.image.extract_patches(x, (2, 2)),
    "reflected border": lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
}
RESIZES = {
    "antialiased": {"antialias": True},
    "bicubic": {"interpolation": "bicubic"},
    "bicubic, antialiased": {"interpolation": "bicubic", "antialias": True},
    "lanczos3": {"interpolation": "lanczos3"},
    "lanczos5, antialiased": {"interpolation": "lanczos5", "antialias": True},
    "area": {"interpolation": "area"},
    "antialiased, cropped": {"antialias": True, "crop_to_aspect_ratio": True},
}
REFUSED = {
    "tflite": {
        "MaxPool3D": lambda x: layers.MaxPooling3D()(layers.Reshape((14, 14, 4, 2))(x)),
        "Atan": ops.arctan,
    },
    "onnx": {"Bitcast": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 8)},
}


def model_with(layer):
    """A small classifier with a layer, or what a function makes of a tensor, in the middle."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layer(layers.Conv2D(8, 3)(layers.Rescaling(1 / 255)(image)))
    if len(x.shape) > 2:
        x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(5)(x))


def assert_same_logits(model, spec, folder):
    content = FINISHERS[spec.format](CONVERTERS[spec.format](model, spec), "float32", {})
    path = folder / f"model.{spec.format}"
    path.write_bytes(content)
    session = engine_of(spec.format).open_session(path, trusted=True)
    logits = run(session, IMAGES)
    session.close()
    expected = np.asarray(model(IMAGES.astype(np.float32), training=False))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max() + 1e-6)
    return content


def spec_of(format, **options):
    return ExportSpec(format, dynamic_batch=format == "onnx", **options)


def test_keras_has_no_activation_less_than_before():
    assert {"gelu", "silu", "mish", "celu", "hard_swish", "relu6"} <= set(ACTIVATIONS)


@each_format
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_computes_what_keras_computes(name, format, tmp_path):
    assert_same_logits(model_with(layers.Activation(name)), spec_of(format), tmp_path)


@each_format
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_what_keras_computes(name, format, tmp_path):
    assert_same_logits(model_with(LAYERS[name]), spec_of(format), tmp_path)


@each_format
@pytest.mark.parametrize("size", [(10, 11), (24, 20)])
@pytest.mark.parametrize("name", RESIZES)
def test_an_image_is_resized_as_keras_does_it(name, size, format, tmp_path):
    model = model_with(layers.Resizing(*size, **RESIZES[name]))
    assert_same_logits(model, spec_of(format), tmp_path)


@pytest.mark.parametrize(
    ("format", "operator"), [(format, name) for format in FORMATS for name in REFUSED[format]]
)
def test_an_operator_that_a_format_lacks_is_named_in_one_line(format, operator):
    with pytest.raises(ConversionError, match=rf"no (builtin|operator) for .*{operator}") as error:
        CONVERTERS[format](model_with(REFUSED[format][operator]), spec_of(format))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", ["squeeze and excite", "LSTM", "RMS normalization"])
def test_every_opset_computes_what_keras_computes(name, opset, tmp_path):
    import onnx

    model = model_with(LAYERS[name])
    content = assert_same_logits(model, spec_of("onnx", opset=opset), tmp_path)
    assert onnx.load_from_string(content).opset_import[0].version == opset


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_a_tflite_file_has_its_signature_whatever_the_activation(activation):
    from ai_edge_litert.interpreter import Interpreter

    content = CONVERTERS["tflite"](model_with(layers.Activation(activation)), spec_of("tflite"))
    signatures = Interpreter(model_content=content).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}


@each_format
def test_a_whole_classifier_after_other_layers_computes_what_keras_computes(format, tmp_path):
    backbone = model_with(LAYERS["squeeze and excite"])
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(3, 1)(layers.RandomFlip()(image))
    model = keras.Model(image, layers.Dense(4)(backbone(x)))
    assert_same_logits(model, spec_of(format), tmp_path)
