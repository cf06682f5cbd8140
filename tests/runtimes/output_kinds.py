"""Small classifiers with every kind of output."""

import keras
from keras import layers

SHAPE = (16, 16, 3)


def _features():
    image = keras.Input(SHAPE, name="camera")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.MaxPooling2D(4)(x)
    return image, layers.Flatten()(x)


def _model(head):
    keras.utils.set_random_seed(1)
    image, features = _features()
    return keras.Model(image, head(features), name="small")


def _plate(x, slots=4, symbols=7):
    x = layers.Reshape((slots, symbols))(layers.Dense(slots * symbols)(x))
    return layers.Softmax(name="plate")(x)


def _several(x):
    # In another order than that of their names, which converters sort by.
    weather = layers.Dense(5, name="weather")(x)
    indoors = layers.Dense(1, activation="sigmoid", name="indoors")(x)
    return [weather, indoors, _plate(x)]


# By kind: the layers of the head, and the activations of its outputs.
HEADS = {
    "logits": (lambda: layers.Dense(5), ["none"]),
    "softmax": (lambda: layers.Dense(5, activation="softmax"), ["softmax"]),
    "one-sigmoid": (lambda: layers.Dense(1, activation="sigmoid"), ["sigmoid"]),
    "one-logit": (lambda: layers.Dense(1), ["none"]),
    "multi-label": (lambda: layers.Dense(6, activation="sigmoid"), ["sigmoid"]),
    "slots": (lambda: _plate, ["softmax"]),
    "several": (lambda: _several, ["none", "sigmoid", "softmax"]),
}


def model_of(kind):
    """Returns a model with the outputs of a kind, a key of ``HEADS``."""
    return _model(HEADS[kind][0]())
