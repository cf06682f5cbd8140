"""A Keras model as one frozen TensorFlow function."""

from typing import Any

import keras

from cct_export.errors import ConversionError
from cct_export.formats.traced.inference import inference_model
from cct_export.graph.plan import Plan
from cct_export.model.checkpoint import image_shape

OUTPUT = "logits"


def frozen_function(model: keras.Model, batch: int | None) -> Any:
    """Traces ``model`` at inference and turns its weights into constants.

    Args:
        model: an image classifier.
        batch: images per call, None for any number.

    Returns:
        A ``tf.function`` with a fixed signature, from ``image`` float32 ``(batch, H, W, C)``,
        0–255, to a dict with ``logits``.

    Raises:
        ConversionError: Keras runs on another backend than TensorFlow, or the model holds
            operators that only training has.
    """
    if keras.backend.backend() != "tensorflow":
        raise ConversionError(
            f"conversion needs Keras on TensorFlow, not on {keras.backend.backend()}: "
            "start the process with KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    inference = inference_model(model)
    shape = tf.TensorSpec([batch, *image_shape(model)], tf.float32, name=Plan.INPUT)
    traced = tf.function(lambda image: inference(image, training=False), input_signature=[shape])
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    random = sorted({op.type for op in frozen.graph.get_operations() if "Random" in op.type})
    if random:
        raise ConversionError(f"operators that draw random numbers remain: {', '.join(random)}")
    return tf.function(lambda image: {OUTPUT: frozen(image)[0]}, input_signature=[shape])
