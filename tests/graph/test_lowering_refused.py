"""What is not lowered, with the layer and the reason; and plans that prove wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from changed import changed_example, lowered, reason, sequential, trained
from keras import layers, ops

from cct_export.graph.lowering import lower_model


class Scaled(layers.Dense):
    """A dense layer whose own code does more."""

    def call(self, x):
        return 2 * super().call(x)


class Shuffled(layers.Conv2D):
    """A convolution that replaces what Keras' code calls."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel[::-1])


class Function(layers.Layer):
    """Code of the user's."""

    def __init__(self, function):
        super().__init__(name="f")
        self.function = function

    def call(self, x):
        return self.function(x)


def fails(x):
    """Runs on values, and fails without."""
    if isinstance(x, keras.KerasTensor):
        raise RuntimeError("a long story, " * 50)
    return x


class Half(layers.Layer):
    """Two parts: the second has an operation without a step."""

    def __init__(self):
        super().__init__(name="half")
        self.first = layers.Dense(4, name="first")

    def call(self, x):
        return ops.erf(self.first(x))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.DepthwiseConv2D(3, name="dw"), "dw: DepthwiseConv2D is not known"),
        (layers.Conv2D(6, 3, groups=3, name="c"), "c: a convolution of 3 groups"),
        (layers.Conv2D(6, 3, dilation_rate=2, name="c"), "c: a dilated convolution"),
        (layers.Dense(6, activation="mish", name="d"), "d: the activation mish is not known"),
        (layers.LeakyReLU(name="l"), "l: LeakyReLU is not known"),
        (layers.Resizing(9, 9, "nearest", name="r"), "r: nearest resizing"),
        (layers.Resizing(9, 9, antialias=True, name="r"), "r: antialiased bilinear resizing"),
        (layers.RandomCrop(9, 9, name="r"), "r: a crop that resizes"),
        (layers.LayerNormalization(axis=1, name="n"), "n: it normalizes other axes than the last"),
        (
            layers.BatchNormalization(axis=1, name="n"),
            "n: it normalizes another axis than the last",
        ),
        (Half(), "half/erf: Erf is not known"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_layer_that_no_step_computes_is_named(layer, expected):
    model = sequential(layers.Rescaling(1 / 255), layer, layers.Flatten(), layers.Dense(3))
    assert reason(model).startswith(expected)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (tf.nn.relu, "f: its code calls TensorFlow"),
        (lambda x: tf.cast(x, "float32") / 2, "f: its code calls TensorFlow"),
        (lambda x: ops.convert_to_tensor(np.abs(x)), "f: its code calls NumPy"),
        (lambda x: ops.relu(x) if x[0, 0] else x, "f: its code cannot be followed: A symbolic"),
        (fails, "f: its code cannot be followed: a long story, a long"),
    ],
    ids=["TensorFlow", "arithmetic of TensorFlow", "NumPy", "condition", "long"],
)
def test_code_that_cannot_be_followed_is_said_in_a_few_words(function, expected):
    image = keras.Input((12, 12, 3))
    x = layers.Dense(3)(layers.Flatten()(image))
    layer = Function(function)
    layer.compute_output_spec = lambda x: keras.KerasTensor(x.shape)
    said = reason(keras.Model(image, layer(x)))
    assert said.startswith(expected)
    assert len(said) < 160


def test_an_activation_inside_a_changed_example_is_named():
    assert reason(changed_example(activation="mish")).endswith("the activation mish is not known")


def test_recurrent_layers_are_named():
    stack = [layers.Reshape((12, 36)), layers.Bidirectional(layers.LSTM(3), name="both")]
    assert reason(sequential(*stack, layers.Dense(3))) == "both: Bidirectional is not known"


def test_what_a_subclass_does_is_lowered_from_its_own_code():
    lowered(sequential(layers.Rescaling(1 / 255), layers.Flatten(), Scaled(3)))


@pytest.mark.parametrize("outputs", [None, "softmax", "sigmoid"])
def test_a_wrong_plan_is_found_by_its_logits(outputs):
    model = sequential(
        layers.Rescaling(1 / 255),
        Shuffled(6, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(3, activation=outputs),
    )
    assert "the plan that was read from its graph is wrong: its logits differ by" in reason(model)


def test_a_wrong_plan_is_found_behind_a_saturated_softmax():
    model = sequential(
        layers.Rescaling(1 / 255),
        Shuffled(6, 3),
        layers.Flatten(),
        layers.Dense(3, activation="softmax", name="probabilities"),
    )
    dense = model.get_layer("probabilities")
    kernel, _ = dense.get_weights()
    dense.set_weights([kernel, np.array([40.0, 0, -10])])
    images = np.zeros((1, 12, 12, 3), np.float32)
    assert np.asarray(model(images)).max() == 1
    assert "is wrong" in reason(model)


def test_large_logits_behind_a_softmax_are_no_reason():
    model = sequential(layers.Conv2D(6, 3), layers.Flatten(), layers.Dense(9, activation="softmax"))
    lowering = lower_model(model)
    assert lowering.plan is not None, lowering.reason


def test_several_outputs_and_a_map_as_output_are_not_lowered():
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3)(image)
    flat = layers.Flatten()(x)
    heads = keras.Model(image, [layers.Dense(3)(flat), layers.Dense(2)(flat)])
    assert reason(trained(heads)) == "it has 2 outputs"
    assert reason(trained(keras.Model(image, x))).startswith("its output is not one vector")


def test_a_model_that_returns_its_image_is_not_lowered():
    image = keras.Input((1, 1, 3))
    assert reason(keras.Model(image, layers.Identity()(image))).startswith("its output is not")


def test_keras_is_as_before_after_a_layer_was_followed():
    before = keras.Variable.__add__, getattr(keras.KerasTensor, "__array_ufunc__", None)
    lowered(sequential(layers.Flatten(), Scaled(3)))
    reason(sequential(Function(tf.nn.relu), layers.Flatten(), layers.Dense(3)))
    after = keras.Variable.__add__, getattr(keras.KerasTensor, "__array_ufunc__", None)
    assert after == before
