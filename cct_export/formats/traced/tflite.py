"""A Keras model as a float32 TFLite flatbuffer."""

import re

import keras

from cct_export.errors import ConversionError
from cct_export.formats.traced.tracing import frozen_function
from cct_export.specs import ExportSpec


def convert(model: keras.Model, spec: ExportSpec) -> bytes:
    """Converts ``model`` with builtin operators only, batch 1, signature ``serving_default``.

    Args:
        model: an image classifier.
        spec: unused so far but for the format; TFLite files take one image.

    Returns:
        The flatbuffer: ``image`` float32 ``(1, H, W, C)``, 0–255, to ``logits`` float32
        ``(1, classes)``.

    Raises:
        ConversionError: the model has operators that TFLite's builtins lack.
    """
    import tensorflow as tf

    function = frozen_function(model, batch=1).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        content: bytes = converter.convert()
    except Exception as error:  # the converter raises bare Exceptions
        missing = sorted(set(re.findall(r"'(tf\.\w+)' op", str(error))))
        reason = f"no builtin for {', '.join(missing)}" if missing else str(error)
        raise ConversionError(f"TFLite's converter refused the model: {reason}") from error
    return content
