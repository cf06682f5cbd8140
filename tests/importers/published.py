"""The published keras.io example, built from its description.

Its classes have the names that its files contain, and are not registered with Keras.
"""

import keras
import numpy as np
from keras import layers, ops

WIDTH = 128


class CCTTokenizer(layers.Layer):
    """Two stages of convolution, padding and pooling; the pixels that remain are the tokens."""

    def __init__(self):
        super().__init__()
        stages = []
        for filters in (64, WIDTH):
            stages += [
                layers.Conv2D(filters, 3, use_bias=False, activation="relu"),
                layers.ZeroPadding2D(1),
                layers.MaxPooling2D(3, 2, "same"),
            ]
        self.conv_model = keras.Sequential(stages)

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
    """The identity at inference; it has a random state but no weights."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, branch):
        return branch


class SequencePooling(layers.Layer):
    """The tokens' mean by a softmax over the scores of a dense layer."""

    def __init__(self):
        super().__init__()
        self.attention = layers.Dense(1)

    def call(self, tokens):
        scores = ops.softmax(self.attention(tokens), axis=1)
        return ops.sum(scores * tokens, axis=1)


def published_example(
    classes=10, blocks=2, positional=True, size=32, heads=2, activation=ops.gelu, epsilon=1e-5
):
    image = layers.Input((size, size, 3))
    augmentation = [
        layers.Rescaling(1 / 255),
        layers.RandomCrop(size, size),
        layers.RandomFlip("horizontal"),
    ]
    tokens = CCTTokenizer()(keras.Sequential(augmentation, name="data_augmentation")(image))
    if positional:
        tokens += PositionEmbedding()(tokens)
    for _ in range(blocks):
        x = layers.LayerNormalization(epsilon=epsilon)(tokens)
        x = layers.MultiHeadAttention(num_heads=heads, key_dim=WIDTH, dropout=0.1)(x, x)
        tokens = layers.Add()([StochasticDepth()(x), tokens])
        x = layers.LayerNormalization(epsilon=epsilon)(tokens)
        for _ in range(2):
            x = layers.Dense(WIDTH, activation=activation)(x)
            x = layers.Dropout(0.1)(x)
        tokens = layers.Add()([StochasticDepth()(x), tokens])
    pooled = SequencePooling()(layers.LayerNormalization(epsilon=epsilon)(tokens))
    return keras.Model(image, layers.Dense(classes)(pooled))


def randomised(model):
    """Adds noise to every weight, so that a lost or swapped one shows."""
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model
