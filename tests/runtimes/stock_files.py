"""Small files of TensorFlow's own converter."""

import numpy as np


def convert(folder, function, shape=(1, 8, 8, 3), **settings):
    """A file of TensorFlow's own converter."""
    import tensorflow as tf

    traced = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    for name, value in settings.items():
        setattr(converter, name, value)
    path = folder / "stock.tflite"
    path.write_bytes(converter.convert())
    return path


def weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def branched(folder):
    """A file with two branches, the first of which is read after the second is computed."""
    import tensorflow as tf

    def branches(x):
        first = tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 3, 4), 1, "SAME"))
        second = tf.nn.softmax(tf.nn.conv2d(x, weights(1, 1, 3, 4), 1, "SAME"))
        return tf.reduce_mean(first * tf.cumsum(second, 1), (1, 2))

    return convert(folder, branches)
