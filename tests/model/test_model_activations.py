"""What an output is, logits or probabilities, is read from the graph."""

import keras
import pytest
from keras import layers, ops

from cct_export.model.cct import CCT
from cct_export.model.outputs import activation_of
from cct_export.specs import ModelSpec


def model(*head, units=5):
    return keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(units), *head])


def functional(head):
    image = keras.Input((6, 6, 3))
    return keras.Model(image, head(layers.Dense(5)(layers.Flatten()(image))))


class Head(layers.Layer):
    """As a user writes it: its own layers, and Keras' operations."""

    def __init__(self, activation):
        super().__init__()
        self.dense = layers.Dense(5)
        self.activation = activation  # not what a layer of Keras calls so

    def call(self, x):
        return self.activation(self.dense(x))


class Opaque(layers.Layer):
    """Computes with another library."""

    def call(self, x):
        import tensorflow as tf

        return tf.nn.softmax(x) if tf.is_tensor(x) else tf.nn.softmax(x, axis=-1)


HEADS = {
    "logits": ((), "none"),
    "linear activation": ([layers.Activation("linear")], "none"),
    "dropout": ([layers.Dropout(0.5)], "none"),
    "softmax layer": ([layers.Softmax()], "softmax"),
    "softmax activation": ([layers.Activation("softmax")], "softmax"),
    "dense softmax": ([layers.Dense(4, activation="softmax")], "softmax"),
    "dense sigmoid": ([layers.Dense(1, activation="sigmoid")], "sigmoid"),
    "operation": ([layers.Dense(4, activation=ops.sigmoid)], "sigmoid"),
    "function of the user's": ([layers.Activation(lambda x: ops.softmax(x / 2))], "softmax"),
    "scaling of the user's": ([layers.Activation(lambda x: x / 2)], "none"),
    "temperature": ([layers.Rescaling(0.5)], "none"),
    "log-softmax": ([layers.Activation("log_softmax")], "none"),
    "moved": ([layers.Softmax(), layers.Dropout(0.1), layers.Identity()], "softmax"),
    "slots": ([layers.Dense(10), layers.Reshape((2, 5)), layers.Softmax()], "softmax"),
    "slots, then flat": (
        [layers.Dense(10), layers.Reshape((2, 5)), layers.Softmax(), layers.Flatten()], "",
    ),
    "softmax over the slots": ([layers.Reshape((1, 5)), layers.Softmax(axis=1)], ""),
    "sigmoids, then flat": (
        [layers.Dense(4, activation="sigmoid"), layers.Reshape((2, 2)), layers.Flatten()],
        "sigmoid",
    ),
    "scaled probabilities": ([layers.Softmax(), layers.Rescaling(2.0)], ""),
    "relu": ([layers.Dense(4, activation="relu")], ""),
    "tanh": ([layers.Activation("tanh")], ""),
    "layer of the user's": ([Head(ops.softmax)], "softmax"),
    "logits of a layer of the user's": ([Head(lambda x: x)], "none"),
    "another library": ([Opaque()], ""),
}  # fmt: skip


@pytest.mark.parametrize(("head", "activation"), HEADS.values(), ids=HEADS)
def test_the_last_activation_says_what_an_output_is(head, activation):
    assert activation_of(model(*head)) == activation


def test_operations_after_the_layers_count():
    assert activation_of(functional(ops.softmax)) == "softmax"
    assert activation_of(functional(lambda x: ops.softmax(x, axis=-1)[:, :])) == "softmax"
    assert activation_of(functional(lambda x: ops.expand_dims(ops.sigmoid(x), 1))) == "sigmoid"
    assert activation_of(functional(lambda x: ops.softmax(x, axis=0))) == ""
    assert activation_of(functional(lambda x: x + x)) == "none"
    assert activation_of(functional(lambda x: x + ops.softmax(x))) == ""


def test_a_nested_model_is_entered_and_left():
    softmax = keras.Sequential([keras.Input((5,)), layers.Softmax()])
    passing = keras.Sequential([keras.Input((5,)), layers.Dropout(0.5)])
    assert activation_of(functional(softmax)) == "softmax"
    assert activation_of(functional(lambda x: passing(softmax(x)))) == "softmax"
    assert activation_of(functional(passing)) == "none"


def test_slots_that_share_a_dense_layer():
    dense = layers.TimeDistributed(layers.Dense(4, activation="softmax"))
    assert activation_of(model(layers.Reshape((5, 1)), dense)) == "softmax"


def test_every_output_has_its_own():
    image = keras.Input((6, 6, 3))
    x = layers.Flatten()(image)
    heads = [layers.Dense(3, activation="softmax")(x), layers.Dense(2)(x)]
    both = keras.Model(image, heads)
    assert [activation_of(both, index) for index in range(2)] == ["softmax", "none"]


def test_a_cct_ends_in_logits():
    spec = ModelSpec(filters=(4, 8), mlp_units=(8, 8), heads=2, head_dim=4)
    assert activation_of(CCT(spec)) == "none"
