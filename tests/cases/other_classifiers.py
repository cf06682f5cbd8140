"""Small image classifiers that are no CCT, as people build, train and save them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from cases.changed_ccts import with_random_weights
from keras import layers, ops

SHAPE = (16, 16, 3)


def small(
    *inner: layers.Layer,
    head: Sequence[layers.Layer] | None = None,
    front: Sequence[layers.Layer] | None = None,
    shape=SHAPE,
    batch=None,
    activation="relu",
    classes=5,
    **conv,
):
    """Returns Rescaling → Conv2D(8, 3) → ``inner`` → pool → Dense."""
    keras.utils.set_random_seed(0)
    image = x = keras.Input(batch_shape=(batch, *shape))
    for layer in [layers.Rescaling(1 / 255)] if front is None else front:
        x = layer(x)
    x = layers.Conv2D(8, 3, activation=activation, **conv)(x)
    for layer in inner:
        x = layer(x)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    for layer in [layers.Dense(classes)] if head is None else head:
        x = layer(x)
    return with_random_weights(keras.Model(image, x))


def _list_in():
    image = keras.Input(SHAPE)
    return keras.Model([image], small()(image))


def _dict_in():
    image = keras.Input(SHAPE, name="image")
    return keras.Model({"image": image}, small()(image))


def _dict_out():
    image = keras.Input(SHAPE)
    return keras.Model(image, {"scores": small()(image)})


def _list_out():
    image = keras.Input(SHAPE)
    return keras.Model(image, [small()(image)])


def _backbone(structure):
    pixels = keras.Input(SHAPE)
    maps = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(pixels))
    backbone = keras.Model(pixels, structure(maps))
    image = keras.Input(SHAPE)
    features = backbone(image)
    maps = features["maps"] if isinstance(features, dict) else features[0]
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(maps))
    return with_random_weights(keras.Model(image, x))


def _mixed(policy):
    keras.config.set_dtype_policy(policy)
    try:
        return small()
    finally:
        keras.config.set_dtype_policy("float32")


class ReshapeOfOne(layers.Layer):
    """Says that there is one image."""

    def call(self, x):
        return ops.reshape(x, (1, 8))


def _lstm():
    return small(
        layers.Reshape((14, 14 * 8)), layers.Bidirectional(layers.LSTM(6)), head=[layers.Dense(5)]
    )


def _squeeze_and_excite():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, activation="silu")(layers.Rescaling(1 / 255)(image))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="silu")(gate))
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, gate]))
    return with_random_weights(keras.Model(image, layers.Dense(5)(x)))


def _large_softmax():
    model = small(head=[layers.Dense(5, activation="softmax")])
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 60, bias])
    return model


def _number_plate():
    x = small(layers.MaxPooling2D(2), head=[layers.Dense(4 * 9), layers.Reshape((4, 9))])
    return keras.Model(x.input, layers.Softmax()(x.output))


def _heads():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    x = layers.GlobalAveragePooling2D()(x)
    colour = layers.Dense(3, activation="softmax", name="colour")(x)
    size = layers.Dense(2, name="size")(x)
    return with_random_weights(keras.Model(image, {"colour": colour, "size": size}))


class Subclassed(keras.Model):
    """A model with a call of its own."""

    def __init__(self):
        super().__init__()
        self.front = layers.Rescaling(1 / 255)
        self.convolution = layers.Conv2D(8, 3, activation="relu")
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(5)

    def call(self, images):
        return self.head(self.pool(self.convolution(self.front(images))))


def _subclassed():
    model = Subclassed()
    model(np.zeros((1, *SHAPE), np.float32))
    return with_random_weights(model)


def _outside():
    """Returns a model whose preprocessing is not in it, as those of keras.applications."""
    return small(front=[])


OTHER_CLASSIFIERS: dict[str, Callable[[], keras.Model]] = {
    "small": small,
    "called with a list": _list_in,
    "called with a dict": _dict_in,
    "gives a list": _list_out,
    "gives a dict": _dict_out,
    "backbone gives a list": lambda: _backbone(lambda maps: [maps]),
    "backbone gives a dict": lambda: _backbone(lambda maps: {"maps": maps}),
    "exact GELU": lambda: small(activation="gelu"),
    "SiLU": lambda: small(activation="silu"),
    "Mish": lambda: small(activation="mish"),
    "leaky ReLU": lambda: small(activation="leaky_relu"),
    "grouped convolution": lambda: small(layers.Conv2D(8, 3, groups=4, activation="relu")),
    "depthwise convolution": lambda: small(layers.DepthwiseConv2D(3, activation="relu6")),
    "separable convolution": lambda: small(layers.SeparableConv2D(12, 3, activation="relu")),
    "dilated convolution": lambda: small(layers.Conv2D(8, 3, dilation_rate=2, activation="relu")),
    "squeeze and excite": _squeeze_and_excite,
    "flattened": lambda: small(layers.MaxPooling2D(2), layers.Flatten()),
    "mixed_float16": lambda: _mixed("mixed_float16"),
    "mixed_bfloat16": lambda: _mixed("mixed_bfloat16"),
    "batch of 1": lambda: small(
        layers.GlobalAveragePooling2D(), ReshapeOfOne(), batch=1, head=[layers.Dense(5)]
    ),
    "batch of 4": lambda: small(batch=4),
    "antialiased Resizing": lambda: small(
        shape=(40, 36, 3),
        front=[layers.Resizing(16, 16, antialias=True), layers.Rescaling(1 / 255)],
    ),
    "nearest Resizing": lambda: small(
        shape=(40, 36, 3),
        front=[layers.Resizing(16, 16, interpolation="nearest"), layers.Rescaling(1 / 255)],
    ),
    "large softmax head": _large_softmax,
    "one sigmoid": lambda: small(head=[layers.Dense(1, activation="sigmoid")]),
    "multi-label": lambda: small(head=[layers.Dense(5, activation="sigmoid")]),
    "slots × letters": _number_plate,
    "several heads": _heads,
    "LSTM": _lstm,
    "subclassed": _subclassed,
    "no scaling": _outside,
}


def _saved(name: str, save: Callable[[keras.Model, Path], None]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / name
        save(small(), path)
        return str(path)

    return write


# Models that a file holds, by what writes it to a folder and returns its name.
SAVED_MODELS: dict[str, Callable[[Path], str]] = {
    ".keras": _saved("m.keras", lambda model, path: model.save(path)),
    ".h5": _saved("m.h5", lambda model, path: model.save(path)),
    "SavedModel of Keras 3": _saved("saved", lambda model, path: model.export(path, verbose=False)),
}
