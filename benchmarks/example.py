"""The keras.io example "Compact Convolutional Transformers" built of stock layers.

It computes what the example does, and uses nothing of cct-export.
"""

import keras
import numpy as np
from keras import layers, ops

WIDTH, BLOCKS, HEADS, RATE = 128, 2, 2, 0.1


class PositionEmbedding(layers.Layer):
    """A learned vector for each token."""

    def build(self, shape):
        """Makes the table."""
        self.table = self.add_weight(name="table", shape=shape[1:])

    def call(self, tokens):
        """Returns tokens plus table."""
        return tokens + self.table


class StochasticDepth(layers.Layer):
    """Drops a branch for some of the samples."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.random = keras.random.SeedGenerator(1337)

    def call(self, branch, training=None):
        """Returns the branch or zeros."""
        if not training:
            return branch
        kept = 1.0 - self.rate
        noise = keras.random.uniform((ops.shape(branch)[0], 1, 1), 0, 1, seed=self.random)
        return branch / kept * ops.floor(kept + noise)


class SequencePooling(layers.Layer):
    """The tokens' mean by a softmax over the scores of a dense layer."""

    def __init__(self):
        super().__init__()
        self.scores = layers.Dense(1)

    def call(self, tokens):
        """Returns one vector of each image."""
        weights = ops.softmax(self.scores(tokens), axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), tokens), 1)


def build(classes: int = 10, size: int = 32) -> keras.Model:
    """Returns the example's model, compiled as the example compiles it."""
    image = layers.Input((size, size, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.RandomFlip("horizontal")(layers.RandomCrop(size, size)(x))
    for filters in (64, WIDTH):
        x = layers.Conv2D(
            filters, 3, use_bias=False, activation="relu", kernel_initializer="he_normal"
        )(x)
        x = layers.MaxPooling2D(3, 2, "same")(layers.ZeroPadding2D(1)(x))
    tokens = PositionEmbedding()(layers.Reshape((-1, WIDTH))(x))
    for rate in np.linspace(0, RATE, BLOCKS):
        x = layers.LayerNormalization(epsilon=1e-5)(tokens)
        x = layers.MultiHeadAttention(HEADS, WIDTH, dropout=0.1)(x, x)
        tokens = layers.Add()([StochasticDepth(float(rate))(x), tokens])
        x = layers.LayerNormalization(epsilon=1e-5)(tokens)
        for _ in range(2):
            x = layers.Dropout(0.1)(layers.Dense(WIDTH, activation=ops.gelu)(x))
        tokens = layers.Add()([StochasticDepth(float(rate))(x), tokens])
    pooled = SequencePooling()(layers.LayerNormalization(epsilon=1e-5)(tokens))
    model = keras.Model(image, layers.Dense(classes)(pooled))
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate=0.001, weight_decay=0.0001),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top-5-accuracy"),
        ],
    )
    return model
