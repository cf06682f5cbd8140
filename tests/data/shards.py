"""TFRecord shards for tests, written by TensorFlow."""

import io

import numpy as np
from PIL import Image


def png(value, size=4):
    """Returns a single-colour PNG."""
    return encoded(np.full((size, size, 3), value, np.uint8))


def encoded(pixels, kind="PNG", **options):
    """Returns pixels as the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def example(**features):
    """Returns a serialized Example; ``__`` in a name is a slash.

    A value is bytes, an integer, a float, or a list of one kind.
    """
    import tensorflow as tf

    def feature(value):
        values = value if isinstance(value, list) else [value]
        if all(isinstance(value, bytes) for value in values):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if all(isinstance(value, int) for value in values):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def imagenet(picture, label, text=b""):
    """Returns an Example with the features of an ImageNet record."""
    named = {"image__class__text": text} if text else {}
    return example(
        image__encoded=picture, image__class__label=label, image__height=4,
        image__object__bbox__xmin=[0.1, 0.2], image__filename=b"n01440764_1.JPEG", **named,
    )  # fmt: skip


def write(path, examples):
    """Writes a shard."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in examples:
            writer.write(content)
    return path
