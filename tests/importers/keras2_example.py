"""A program that saves the keras.io example as Keras 2 did, with its logits.

``python keras2_example.py FOLDER [constant|relu]`` writes ``FOLDER/saved``, ``FOLDER/logits.npz``.
With ``constant`` the positions come from an embedding layer that is called on a constant: they are
then no weight but a constant of the graph, as in the first edition of the example. With ``relu``
the MLPs have ReLU.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

WIDTH = 128


class CCTTokenizer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
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
        return tf.reshape(maps, (-1, tf.shape(maps)[1] * tf.shape(maps)[2], WIDTH))


class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight("table", shape[1:], initializer="glorot_uniform")

    def call(self, tokens):
        return tokens + self.table


class StochasticDepth(layers.Layer):
    def call(self, branch, training=None):
        if training:
            return branch * tf.floor(0.9 + tf.random.uniform((tf.shape(branch)[0], 1, 1)))
        return branch


def example(constant, activation):
    image = layers.Input((32, 32, 3))
    augmentation = [layers.Rescaling(1 / 255), layers.RandomCrop(32, 32), layers.RandomFlip()]
    tokens = CCTTokenizer()(keras.Sequential(augmentation)(image))
    if constant:
        tokens += layers.Embedding(64, WIDTH)(tf.range(64)) * 10
    else:
        tokens = Positions()(tokens)
    for _ in range(2):
        x = layers.LayerNormalization(epsilon=1e-5)(tokens)
        x = layers.MultiHeadAttention(2, WIDTH, dropout=0.1)(x, x)
        tokens = layers.Add()([StochasticDepth()(x), tokens])
        x = layers.LayerNormalization(epsilon=1e-5)(tokens)
        for _ in range(2):
            x = layers.Dropout(0.1)(layers.Dense(WIDTH, activation=activation)(x))
        tokens = layers.Add()([StochasticDepth()(x), tokens])
    tokens = layers.LayerNormalization(epsilon=1e-5)(tokens)
    weights = tf.nn.softmax(layers.Dense(1)(tokens), axis=1)
    pooled = tf.squeeze(tf.matmul(weights, tokens, transpose_a=True), -2)
    return keras.Model(image, layers.Dense(10)(pooled))


if __name__ == "__main__":
    folder, constant = Path(sys.argv[1]), "constant" in sys.argv
    keras.utils.set_random_seed(0)
    model = example(constant, tf.nn.relu if "relu" in sys.argv else tf.nn.gelu)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    # With the state of an optimizer, as training leaves it.
    model.compile("adam", "mse")
    images = random.integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    model.fit(images, random.random((4, 10)), verbose=0)
    model.save(folder / "saved", save_format="tf")
    np.savez(folder / "logits.npz", images=images, logits=model(images, training=False))
