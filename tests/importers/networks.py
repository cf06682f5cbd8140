"""A small network that takes scaled pixels, and what those were."""

import keras
from keras import layers

from cct_export.specs import Normalization

CAFFE = Normalization(channels="bgr", mean=(103.939, 116.779, 123.68))
TORCH = Normalization(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def network(*front, name="net", channels=3, head=()):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 10, channels))
    x = image
    for layer in front:
        x = layer(x)
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(x))
    for layer in (layers.Dense(5), *head):
        x = layer(x)
    return keras.Model(image, x, name=name)
