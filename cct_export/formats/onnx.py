"""A Keras model as a float32 ONNX graph."""

import keras

from cct_export.errors import ConversionError
from cct_export.formats.tracing import frozen_function
from cct_export.specs import ExportSpec

OPSETS = range(13, 19)


def convert(model: keras.Model, spec: ExportSpec) -> bytes:
    """Converts ``model`` by tf2onnx.

    Args:
        model: an image classifier.
        spec: ``opset`` and ``dynamic_batch`` are used.

    Returns:
        The serialized graph: ``image`` float32 ``(batch, H, W, C)``, 0–255, to ``logits`` float32
        ``(batch, classes)``.

    Raises:
        ConversionError: unknown opset, or operators that ONNX lacks.
    """
    if spec.opset not in OPSETS:
        raise ConversionError(
            f"opset {spec.opset} is not one that can be written: "
            f"choose {OPSETS.start} to {OPSETS.stop - 1}"
        )
    import tf2onnx

    function = frozen_function(model, batch=None if spec.dynamic_batch else 1)
    try:
        graph, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=spec.opset
        )
    except Exception as error:  # tf2onnx raises what its handlers raise
        raise ConversionError(f"tf2onnx refused the model: {error}") from error
    content: bytes = graph.SerializeToString()
    return content
