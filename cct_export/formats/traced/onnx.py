"""A Keras model as a float32 ONNX graph."""

import keras

from cct_export.errors import ConversionError
from cct_export.formats.onnx import chosen_opset
from cct_export.formats.traced.tracing import frozen_function
from cct_export.specs import ExportSpec

OPSETS = range(13, 19)
DEFAULT_OPSET = 18


def convert(model: keras.Model, spec: ExportSpec) -> bytes:
    """Converts ``model`` by tf2onnx.

    Args:
        model: an image classifier.
        spec: ``opset`` (18 if None) and ``dynamic_batch`` are used.

    Returns:
        The serialized graph: ``image`` float32 ``(batch, H, W, C)``, 0–255, to ``logits`` float32
        ``(batch, classes)``.

    Raises:
        InvalidRequest: unknown opset.
        ConversionError: operators that ONNX lacks.
    """
    opset = chosen_opset(spec, OPSETS, DEFAULT_OPSET)
    import tf2onnx

    function = frozen_function(model, batch=None if spec.dynamic_batch else 1)
    try:
        graph, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=opset
        )
    except Exception as error:  # tf2onnx raises what its handlers raise
        raise ConversionError(f"tf2onnx refused the model: {error}") from error
    content: bytes = graph.SerializeToString()
    return content
