"""What layers of the user's own code do, in any of the usual spellings."""

import math

import keras
import numpy as np
import pytest
from changed import kinds, lowered, reason, sequential, trained
from keras import layers, ops


class Written(layers.Layer):
    """A layer of the user's: sublayers and variables by name, and a function for its call."""

    def __init__(self, function, variables=(), **sublayers):
        super().__init__()
        self.function = function
        self.shapes = dict(variables)
        for name, layer in sublayers.items():
            setattr(self, name, layer)

    def build(self, shape):
        for name, size in self.shapes.items():
            setattr(self, name, self.add_weight(name=name, shape=size, initializer="ones"))

    def call(self, x):
        return self.function(self, x)


def tokens(*stack):
    """Returns a model that makes 16 tokens of width 12, and a classifier after a layer."""
    return sequential(
        layers.Rescaling(1 / 255), layers.Conv2D(12, 3, 3), layers.Reshape((16, 12)), *stack
    )


POOLINGS = {
    "multiply and sum": lambda self, x: ops.sum(ops.softmax(self.score(x), axis=1) * x, axis=1),
    "tokens first": lambda self, x: ops.sum(x * ops.softmax(self.score(x), axis=1), axis=1),
    "keepdims": lambda self, x: ops.squeeze(
        ops.sum(ops.softmax(self.score(x), axis=1) * x, axis=1, keepdims=True), 1
    ),
    "matmul with a transpose": lambda self, x: ops.squeeze(
        ops.matmul(ops.transpose(ops.softmax(self.score(x), axis=1), (0, 2, 1)), x), axis=-2
    ),
    "matmul of transposed tokens": lambda self, x: ops.squeeze(
        ops.matmul(ops.transpose(x, (0, 2, 1)), ops.softmax(self.score(x), axis=-2)), axis=-1
    ),
    "einsum": lambda self, x: ops.einsum(
        "bt,btd->bd", ops.softmax(ops.squeeze(self.score(x), -1)), x
    ),
    "einsum of one column": lambda self, x: ops.einsum(
        "btk,btd->bkd", ops.softmax(self.score(x), axis=1), x
    )[:, 0],
    "a softmax layer": lambda self, x: ops.sum(layers.Softmax(axis=1)(self.score(x)) * x, axis=1),
    "temperature": lambda self, x: ops.sum(ops.softmax(self.score(x) / 3, axis=1) * x, axis=1),
    "flattened": lambda self, x: ops.matmul(
        ops.expand_dims(ops.softmax(ops.reshape(self.score(x), (-1, 16))), 1), x
    )[:, 0, :],
}


@pytest.mark.parametrize("name", POOLINGS)
def test_attention_pooling_is_one_step_however_it_is_written(name):
    model = tokens(Written(POOLINGS[name], score=layers.Dense(1)), layers.Dense(3))
    assert kinds(lowered(model))[-2:] == ["SequencePool", "Dense"]


def test_pooling_of_other_tokens_than_were_scored_is_left_as_it_is():
    pooled = lambda self, x: ops.sum(ops.softmax(self.score(x), axis=1) * ops.relu(x), axis=1)  # noqa: E731
    assert "SequencePool" not in kinds(
        lowered(tokens(Written(pooled, score=layers.Dense(1)), layers.Dense(3)))
    )


def split_heads(x):
    return ops.transpose(ops.reshape(x, (-1, 16, 3, 4)), (0, 2, 1, 3))


def joined(heads):
    return ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, 16, 12))


def by_three_layers(self, x):
    q, k, v = split_heads(self.q(x)), split_heads(self.k(x)), split_heads(self.v(x))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / math.sqrt(4)
    return self.out(joined(ops.matmul(ops.softmax(scores), v)))


def by_scaled_queries(self, x):
    q, k, v = split_heads(self.q(x) * 0.5), split_heads(self.k(x)), split_heads(self.v(x))
    return self.out(joined(ops.softmax(q @ ops.swapaxes(k, -1, -2), axis=-1) @ v))


def by_unstack(self, x):
    qkv = ops.transpose(ops.reshape(self.qkv(x), (-1, 16, 3, 3, 4)), (2, 0, 3, 1, 4))
    q, k, v = ops.unstack(qkv, 3, axis=0)
    return self.out(joined(ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, 2, 3)) / 2), v)))


def by_index(self, x):
    qkv = ops.transpose(ops.reshape(self.qkv(x), (-1, 16, 3, 3, 4)), (2, 0, 3, 1, 4))
    q, k, v = qkv[0], qkv[1], qkv[2]
    return self.out(joined(ops.matmul(ops.softmax(ops.matmul(q, ops.moveaxis(k, 3, 2)) / 2), v)))


def by_split(self, x):
    q, k, v = map(split_heads, ops.split(self.qkv(x), 3, axis=-1))
    return self.out(joined(ops.matmul(ops.softmax(ops.matmul(q, ops.moveaxis(k, 3, 2)) / 2), v)))


def by_einsum(self, x):
    q, k, v = (ops.reshape(each(x), (-1, 16, 3, 4)) for each in (self.q, self.k, self.v))
    scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) / 2)
    return self.out(ops.reshape(ops.einsum("bhqk,bkhd->bqhd", scores, v), (-1, 16, 12)))


def by_one_head(self, x):
    scores = ops.softmax(ops.matmul(self.q(x), ops.transpose(self.k(x), (0, 2, 1))) * 0.3)
    return self.out(ops.matmul(scores, self.v(x)))


def by_keras(self, x):
    q, k, v = (ops.reshape(each(x), (-1, 16, 3, 4)) for each in (self.q, self.k, self.v))
    return self.out(ops.reshape(ops.dot_product_attention(q, k, v), (-1, 16, 12)))


ATTENTIONS = (
    by_three_layers,
    by_scaled_queries,
    by_unstack,
    by_index,
    by_split,
    by_einsum,
    by_one_head,
    by_keras,
)


def projections():
    dense = {name: layers.Dense(12, use_bias=name != "k") for name in ("q", "k", "v", "out")}
    return {**dense, "qkv": layers.Dense(36)}


@pytest.mark.parametrize("written", ATTENTIONS, ids=lambda written: written.__name__)
def test_attention_is_one_step_however_it_is_written(written):
    model = tokens(
        Written(written, **projections()), layers.GlobalAveragePooling1D(), layers.Dense(3)
    )
    assert kinds(lowered(model)) == ["Scale", "Conv", "Reshape", "Attention", "GlobalPool", "Dense"]


def test_attention_of_other_tokens_is_lowered_step_by_step():
    image = keras.Input((12, 12, 3))
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 3, 3)(layers.Rescaling(1 / 255)(image)))
    y = layers.MultiHeadAttention(2, 4)(x, layers.ReLU()(x))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling1D()(y)))
    found = kinds(lowered(trained(model)))
    assert "Attention" not in found
    assert found.count("MatMul") == 2


ELEMENTWISE = {
    "variable first": lambda self, x: self.gain * x + self.shift,
    "variable last": lambda self, x: x * self.gain - self.shift,
    "number minus": lambda self, x: 1 - x / 3,
    "negative": lambda self, x: -x,
    "array first": lambda self, x: np.arange(12, dtype="float32") * x,
    "table": lambda self, x: np.arange(192, dtype="float32").reshape(1, 16, 12) / 50 + x,
    "square": lambda self, x: ops.square(x) + x**2,
    "cast": lambda self, x: ops.cast(x, "float32") + ops.stop_gradient(x),
    "norm by hand": lambda self, x: (
        (x - ops.mean(x, -1, keepdims=True)) / ops.sqrt(ops.var(x, -1, keepdims=True) + 1e-3)
    ),
    "norm of squares": lambda self, x: (
        x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-3) * self.gain
    ),
    "layer norm": lambda self, x: ops.layer_normalization(x, self.gain, self.shift, epsilon=1e-3),
    "maximum over tokens": lambda self, x: x + 0 * x + ops.broadcast_to(self.gain, ops.shape(x)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_arithmetic_with_numbers_variables_and_tensors_is_lowered(name):
    written = Written(ELEMENTWISE[name], {"gain": (12,), "shift": (12,)})
    lowered(tokens(written, layers.Flatten(), layers.Dense(3)))


MOVES = {
    "permutation": lambda self, x: ops.transpose(x, (0, 2, 1)),
    "blue first": lambda self, x: x[..., ::-1],
    "channels by number": lambda self, x: ops.take(x, [2, 0, 1], axis=-1),
    "flip": lambda self, x: ops.flip(x, axis=-1),
    "every second channel": lambda self, x: x[:, :, ::2],
    "some tokens": lambda self, x: x[:, 2:7],
    "one token": lambda self, x: x[:, -1],
    "slice": lambda self, x: ops.slice(x, (0, 3, 2), (ops.shape(x)[0], 5, 4)),
    "another axis": lambda self, x: ops.squeeze(ops.expand_dims(x, (1, -1)), (1, -1)),
    "maximum": lambda self, x: ops.max(x, axis=1),
    "sum over the width": lambda self, x: ops.sum(x, axis=-1),
    "mean over both": lambda self, x: ops.mean(x, axis=(1, 2), keepdims=True),
    "one channel after the other": lambda self, x: ops.stack([x[..., 3], x[..., 1]], axis=-1),
    "parts": lambda self, x: ops.concatenate([x[..., 5:], x[..., :2]], axis=-1),
    "matrix": lambda self, x: ops.matmul(x, self.matrix),
    "matrix first": lambda self, x: ops.matmul(ops.ones((5, 16)) / 7, x),
    "einsum with a matrix": lambda self, x: ops.einsum("btd,de->bet", x, self.matrix),
}


@pytest.mark.parametrize("name", MOVES)
def test_operations_on_axes_are_lowered(name):
    written = Written(MOVES[name], {"matrix": (12, 5)})
    lowered(tokens(written, layers.Flatten(), layers.Dense(3)))


def scores(x):
    return layers.Softmax(axis=1)(layers.Dense(1)(x))


FUNCTIONAL_POOLINGS = {
    "dot": lambda x: layers.Dot(axes=1)([scores(x), x]),
    "dot of tokens first": lambda x: layers.Dot(axes=1)([x, scores(x)]),
    "multiply": lambda x: layers.Lambda(lambda y: ops.sum(y, axis=1))(
        layers.Multiply()([scores(x), x])
    ),
    "mean of products": lambda x: layers.GlobalAveragePooling1D()(
        layers.Multiply()([x, scores(x)])
    ),
    "permuted": lambda x: ops.matmul(
        layers.Softmax()(layers.Permute((2, 1))(layers.Dense(1)(x))), x
    ),
}


@pytest.mark.parametrize("name", FUNCTIONAL_POOLINGS)
def test_attention_pooling_of_keras_layers_is_one_step(name):
    image = keras.Input((12, 12, 3))
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 3, 3)(layers.Rescaling(1 / 255)(image)))
    y = layers.Dense(3)(layers.Flatten()(FUNCTIONAL_POOLINGS[name](x)))
    found = kinds(lowered(trained(keras.Model(image, y))))
    assert found.count("SequencePool") == 1
    assert "Softmax" not in found


FRONTS = {
    "BGR minus means": keras.applications.resnet50.preprocess_input,
    "-1 to 1": keras.applications.mobilenet.preprocess_input,
    "lambda": layers.Lambda(lambda x: (x - 127.5) / 127.5),
    "resize": lambda x: ops.image.resize(x, (16, 9)),
    "padding": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0))),
    "convolution": lambda x: ops.conv(x, ops.ones((3, 3, 3, 4)) / 3000, padding="same"),
    "max pool": lambda x: ops.max_pool(x, 2),
    "average pool": lambda x: ops.average_pool(x, 3, 2, "same"),
    "limits": lambda x: ops.clip(x / 30, 0, 6) + ops.maximum(x / 255 - 0.5, 0),
}


@pytest.mark.parametrize("name", FRONTS)
def test_operations_on_images_are_lowered(name):
    image = keras.Input((12, 12, 3))
    x = layers.Rescaling(1 / 255)(FRONTS[name](image))
    x = layers.Flatten()(layers.Conv2D(4, 3)(x))
    lowered(trained(keras.Model(image, layers.Dense(3)(x))))


ACTIVATIONS = ("relu", "relu6", "silu", "sigmoid", "tanh", "gelu", "hard_silu", "hard_sigmoid")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_with_a_step_is_lowered(name):
    function = getattr(keras.activations, name)
    for made in (
        layers.Dense(8, activation=name),
        layers.Activation(name),
        layers.Conv2D(8, 3, activation=function),
        Written(lambda self, x: getattr(ops, name)(x)),
    ):
        model = sequential(layers.Rescaling(1 / 255), made, layers.Flatten(), layers.Dense(3))
        assert {"Gelu", "Activation", "Conv"} & set(kinds(lowered(model)))


MIXED = {
    "reshape": lambda self, x: ops.reshape(x, (-1, 6)),
    "mean over the batch": lambda self, x: x - ops.mean(x, axis=0, keepdims=True),
    "softmax over the batch": lambda self, x: ops.softmax(x, axis=0),
    "one image": lambda self, x: ops.slice(x, (0, 3, 2), (1, 5, 4)),
    "sum of all": lambda self, x: x * ops.sum(x),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_the_images_of_a_batch_is_not_lowered(name):
    model = tokens(Written(MIXED[name]), layers.Flatten(), layers.Dense(3))
    assert any(word in reason(model) for word in ("batch", "answers for 12 images"))
