"""Compact Convolutional Transformers that people changed, built of the keras.io example's classes.

Its classes are here with the freedom to change what they hold, as in a notebook.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import layers, ops

WIDTH = 32


class CCTTokenizer(layers.Layer):
    """Stages of layers; the pixels that remain are the tokens."""

    def __init__(self, stages: Sequence[layers.Layer]):
        super().__init__()
        self.conv_model = keras.Sequential(list(stages))

    def call(self, images):
        maps = self.conv_model(images)
        return ops.reshape(maps, (-1, maps.shape[1] * maps.shape[2], maps.shape[3]))


class PositionEmbedding(layers.Layer):
    """Returns the table alone; the example adds it."""

    def build(self, shape):
        self.position_embeddings = self.add_weight(name="embeddings", shape=shape[1:])

    def call(self, tokens):
        return ops.broadcast_to(self.position_embeddings, ops.shape(tokens))


class StochasticDepth(layers.Layer):
    """Drops a branch while training."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, branch, training=False):
        if not training:
            return branch
        shape = (ops.shape(branch)[0], 1, 1)
        noise = keras.random.uniform(shape, seed=self.seed_generator)
        return branch / (1 - self.rate) * ops.floor(1 - self.rate + noise)


class SequencePooling(layers.Layer):
    """The tokens' mean by a softmax over the scores of a dense layer."""

    def __init__(self):
        super().__init__()
        self.attention = layers.Dense(1)

    def call(self, tokens):
        weights = ops.transpose(ops.softmax(self.attention(tokens), axis=1), (0, 2, 1))
        return ops.squeeze(ops.matmul(weights, tokens), -2)


class ClassToken(layers.Layer):
    """Puts a token of its own before the others."""

    def build(self, shape):
        self.token = self.add_weight(name="token", shape=(1, 1, shape[2]))

    def call(self, tokens):
        token = ops.broadcast_to(self.token, (ops.shape(tokens)[0], 1, tokens.shape[2]))
        return ops.concatenate([token, tokens], axis=1)


class FirstToken(layers.Layer):
    """The first token is the vector of the image."""

    def call(self, tokens):
        return tokens[:, 0]


def stages(
    filters=(16, WIDTH), kernel=3, stride=1, bias=False, norm=False, pool=None, activation="relu"
):
    """Returns the layers of a tokenizer."""
    built: list[layers.Layer] = []
    for count in filters:
        convolution = layers.Conv2D(
            count, kernel, stride, use_bias=bias, activation=None if norm else activation
        )
        built.append(convolution)
        if norm:
            built += [layers.BatchNormalization(), layers.Activation(activation)]
        if pool is None:
            built += [layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2, "same")]
        else:
            built.append(pool())
    return built


def changed(
    *,
    shape=(32, 32, 3),
    front: Callable[[], Sequence[layers.Layer]] = lambda: [layers.Rescaling(1 / 255)],
    tokenizer: Callable[[], Sequence[layers.Layer]] = stages,
    class_token=False,
    positions=True,
    blocks=2,
    heads=2,
    key_dim=WIDTH,
    value_dim=None,
    mlp=(WIDTH, WIDTH),
    activation="gelu",
    epsilon=1e-5,
    pooling: Callable[[], layers.Layer] = SequencePooling,
    head: Callable[[], Sequence[layers.Layer]] = lambda: [layers.Dense(5)],
):
    """Returns the example with changes; every weight is random, so that a swapped one shows."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input(shape)
    for layer in front():
        x = layer(x)
    tokens = CCTTokenizer(tokenizer())(x)
    if class_token:
        tokens = ClassToken()(tokens)
    if positions:
        tokens += PositionEmbedding()(tokens)
    for _ in range(blocks):
        x = layers.LayerNormalization(epsilon=epsilon)(tokens)
        x = layers.MultiHeadAttention(heads, key_dim, value_dim, dropout=0.1)(x, x)
        tokens = layers.Add()([StochasticDepth()(x), tokens])
        x = layers.LayerNormalization(epsilon=epsilon)(tokens)
        for units in mlp:
            x = layers.Dropout(0.1)(layers.Dense(units, activation=activation)(x))
        tokens = layers.Add()([StochasticDepth()(x), tokens])
    x = pooling()(layers.LayerNormalization(epsilon=epsilon)(tokens))
    for layer in head():
        x = layer(x)
    return with_random_weights(keras.Model(image, x))


def with_random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Sets every weight by the seed alone; statistics of batch normalization are those of data.

    What Keras gave matrices depends on the layers that were made before.
    """
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(random.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(random.uniform(0.5, 2, layer.moving_variance.shape))
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
        elif not isinstance(layer, layers.Normalization):
            for weight in layer._trainable_variables:
                glorot = keras.initializers.GlorotUniform(int(random.integers(2**31)))
                start = weight if len(weight.shape) < 2 else glorot(weight.shape)
                weight.assign(start + random.normal(0, 0.05, weight.shape))
    return model


def _adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.float32))
    return [layer]


def _gelu_of_the_user(x):
    return ops.gelu(x, approximate=False)


CHANGED_CCTS: dict[str, Callable[[], keras.Model]] = {
    "as published": changed,
    "softmax head": lambda: changed(head=lambda: [layers.Dense(5, activation="softmax")]),
    "sigmoid head": lambda: changed(head=lambda: [layers.Dense(5, activation="sigmoid")]),
    "softmax layer": lambda: changed(head=lambda: [layers.Dense(5), layers.Softmax()]),
    "extra dense layer": lambda: changed(
        head=lambda: [layers.Dense(24, activation="relu"), layers.Dropout(0.2), layers.Dense(5)]
    ),
    "mean pooling": lambda: changed(pooling=layers.GlobalAveragePooling1D),
    "max pooling of tokens": lambda: changed(pooling=layers.GlobalMaxPooling1D),
    "flattened tokens": lambda: changed(pooling=layers.Flatten),
    "class token": lambda: changed(class_token=True, pooling=FirstToken),
    "ReLU in the MLP": lambda: changed(activation="relu"),
    "SiLU in the MLP": lambda: changed(activation="silu"),
    "a GELU of the user": lambda: changed(activation=_gelu_of_the_user),
    "wider MLP": lambda: changed(mlp=(96, WIDTH)),
    "deeper MLP": lambda: changed(mlp=(48, 64, WIDTH)),
    "epsilon 1e-3": lambda: changed(epsilon=1e-3),
    "4 heads of 8": lambda: changed(heads=4, key_dim=8),
    "values of another size": lambda: changed(heads=3, key_dim=8, value_dim=20),
    "no positions": lambda: changed(positions=False),
    "no blocks": lambda: changed(blocks=0),
    "batch normalization": lambda: changed(tokenizer=lambda: stages(norm=True)),
    "batch normalization and SiLU": lambda: changed(
        tokenizer=lambda: stages(norm=True, activation="silu")
    ),
    "convolutions with bias": lambda: changed(tokenizer=lambda: stages(bias=True)),
    "kernel 5, stride 2": lambda: changed(tokenizer=lambda: stages((WIDTH,), kernel=5, stride=2)),
    "three stages": lambda: changed(tokenizer=lambda: stages((8, 16, WIDTH), bias=True)),
    "average pooling": lambda: changed(
        tokenizer=lambda: stages(pool=lambda: layers.AveragePooling2D(2))
    ),
    "max pooling of 2, valid": lambda: changed(
        tokenizer=lambda: stages(pool=lambda: layers.MaxPooling2D(2))
    ),
    "slots × letters": lambda: changed(
        shape=(24, 48, 3),
        head=lambda: [layers.Dense(4 * 9), layers.Reshape((4, 9)), layers.Softmax()],
    ),
    "slots × letters of tokens": lambda: changed(
        shape=(16, 48, 3), pooling=lambda: layers.Conv1D(WIDTH, 1), head=lambda: [layers.Dense(9)]
    ),
    "24×48 pixels": lambda: changed(shape=(24, 48, 3)),
    "grey": lambda: changed(shape=(32, 32, 1)),
    "64 pixels": lambda: changed(shape=(64, 64, 3)),
    "100 classes": lambda: changed(head=lambda: [layers.Dense(100)]),
    "Rescaling to -1…1": lambda: changed(front=lambda: [layers.Rescaling(1 / 127.5, -1)]),
    "Normalization": lambda: changed(
        front=lambda: [layers.Normalization(mean=[120, 110, 100], variance=[3600, 4000, 4200])]
    ),
    "adapted Normalization": lambda: changed(front=_adapted),
    "Rescaling and Normalization": lambda: changed(
        front=lambda: [
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=[0.5, 0.45, 0.4], variance=[0.06, 0.06, 0.07]),
        ]
    ),
    "Resizing": lambda: changed(
        shape=(40, 36, 3), front=lambda: [layers.Resizing(32, 32), layers.Rescaling(1 / 255)]
    ),
    "random augmentation": lambda: changed(
        front=lambda: [
            layers.Rescaling(1 / 255),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.1),
            layers.RandomTranslation(0.1, 0.1),
        ]
    ),
}
