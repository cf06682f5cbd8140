"""A program that saves classifiers as Keras 2 does, with their outputs.

``python keras2_classifiers.py FOLDER NAME...`` writes ``NAME.h5``, ``NAME.keras``, ``NAME-saved``
and ``NAME.npz`` for each function below that is named.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

SHAPE = (16, 16, 3)


def _backbone():
    model = keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None)
    # With initial weights the image fades over 52 convolutions: all logits would be equal.
    model.set_weights([2.4 * w if w.ndim > 1 else w for w in model.get_weights()])
    return model


def application():
    """Transfer learning, as TensorFlow's tutorial has it."""
    image = keras.Input((32, 32, 3))
    x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(image)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = layers.GlobalAveragePooling2D()(_backbone()(x, training=False))
    return keras.Model(image, layers.Dense(1)(layers.Dropout(0.2)(x)))


def teachable_machine():
    """As Teachable Machine saves it."""
    head = [layers.Dense(10, "relu", input_shape=(1280,)), layers.Dense(3, "softmax")]
    trunk = keras.Sequential([_backbone(), layers.GlobalAveragePooling2D()])
    return keras.Sequential([trunk, keras.Sequential(head)])


def attention():
    image = keras.Input(SHAPE)
    x = layers.Reshape((-1, 8))(layers.Conv2D(8, 3, 2)(layers.Rescaling(1 / 255)(image)))
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, keras.activations.gelu)(x))
    return keras.Model(image, layers.Dense(5)(x))


def bare_sequential():
    parts = [layers.BatchNormalization(), layers.Conv2DTranspose(4, 3), layers.UpSampling2D()]
    first = layers.Conv2D(8, 3, activation="relu", input_shape=SHAPE)
    return keras.Sequential([first, *parts, layers.GlobalMaxPooling2D(), layers.Dense(5)])


def functions():
    """Functions of TensorFlow, also of a constant and of several tensors."""
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3)(1.0 - image / 255.0)
    x = tf.reduce_mean(tf.concat([tf.nn.relu(x), tf.math.sigmoid(x)], -1), [1, 2])
    return keras.Model(image, layers.Dense(5)(x))


def heads():
    image = keras.Input(SHAPE)
    x = layers.Flatten()(layers.Conv2D(4, 3)(image / 255.0))
    # A SavedModel of Keras 2 names outputs by their layers.
    second, first = layers.Dense(5, name="b")(x), layers.Dense(1, "sigmoid", name="a")(x)
    return keras.Model(image, {"b": second, "a": first})


def mixed():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        image = keras.Input(SHAPE)
        x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
        return keras.Model(image, layers.Dense(5, dtype="float32")(layers.GlobalMaxPool2D()(x)))
    finally:
        keras.mixed_precision.set_global_policy("float32")


def preprocessed():
    """``preprocess_input`` in the order of Caffe: channels reversed, means subtracted."""
    image = keras.Input(SHAPE)
    x = keras.applications.resnet50.preprocess_input(image)
    x = layers.LeakyReLU(0.1)(layers.Conv2D(4, 3)(x))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def recurrent():
    image = keras.Input(SHAPE)
    x = layers.Reshape((16, 48))(layers.Rescaling(1 / 255)(image))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(4))(layers.GRU(4, return_sequences=True)(x))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))


def several_kinds():
    image = keras.Input(SHAPE)
    shared = layers.Conv2D(3, 3, padding="same")
    x = layers.Concatenate()([shared(shared(image / 255.0)), shared(image)])
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x)))
    x = layers.SeparableConv2D(8, 3, activation="swish")(layers.LayerNormalization()(x))
    return keras.Model(image, layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(x)))


def save(name, folder):
    """Writes a model of non-zero biases in every format that has it."""
    keras.utils.set_random_seed(0)
    model = globals()[name]()
    random = np.random.default_rng(0)
    weights = model.get_weights()
    # Variances stay positive, and no activation saturates.
    model.set_weights(
        [w * random.uniform(0.7, 1.3, w.shape) + random.uniform(0, 0.01, w.shape) for w in weights]
    )
    images = random.integers(0, 256, (8, *model.input_shape[1:])).astype(np.float32)
    outputs = model(images, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    np.savez(folder / f"{name}.npz", images=images, **{k: v.numpy() for k, v in outputs.items()})
    for suffix in (".h5", ".keras"):
        try:
            model.save(folder / f"{name}{suffix}")
        except TypeError:  # the .keras of Keras 2 has no slices
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    model.save(folder / f"{name}-saved", save_format="tf")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        save(name, Path(sys.argv[1]))
