"""The routes that everybody has: the files that the libraries' own converters make of a model."""

from pathlib import Path
from typing import Any

import numpy as np

OPSET = 18


def tflite(model: Any, path: Path, scheme: str, images: np.ndarray) -> None:
    """Converts with ``tf.lite.TFLiteConverter.from_keras_model``.

    Args:
        model: the Keras model, augmentation included.
        path: file to write.
        scheme: ``float32``, ``fp16``, ``dynamic`` (int8 weights) or ``full`` (int8 throughout).
        images: uint8 ``(N, H, W, C)``, the representative dataset of ``full``.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "full":
        pixels = images.astype(np.float32)
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in pixels)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


def keras_onnx(model: Any, path: Path) -> None:
    """Exports with Keras' own ``model.export(format="onnx")``, as the example is published."""
    model = with_augmentation(model)
    model.predict_on_batch(np.zeros((1, *model.input_shape[1:]), np.float32))
    model.export(path, format="onnx", verbose=False)


def with_augmentation(model: Any) -> Any:
    """Returns the model with the example's random layers inside, which do nothing at inference."""
    import keras
    from keras import layers

    height, width, channels = model.input_shape[1:]
    image = keras.Input((height, width, channels))
    x = layers.RandomFlip("horizontal")(layers.RandomCrop(height, width)(image))
    return keras.Model(image, model(x))


def without_augmentation(model: Any) -> Any:
    """Returns the model as its author would rebuild it for tf2onnx: without the random layers."""
    import keras

    image = x = keras.Input(model.input_shape[1:])
    for layer in model.layers[1:]:
        if not type(layer).__name__.startswith("Random"):
            x = layer(x)
    return keras.Model(image, x)


def onnx(model: Any, path: Path) -> None:
    """Converts the model without augmentation with tf2onnx, for any batch."""
    import tensorflow as tf
    import tf2onnx

    plain = without_augmentation(model)
    shape = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="image")
    function = tf.function(lambda image: plain(image, training=False), input_signature=[shape])
    graph, _ = tf2onnx.convert.from_function(
        function,
        input_signature=[shape],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    path.write_bytes(graph.SerializeToString())


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Teaches tf2onnx the operator that Keras' exact GELU has: ``erfc(x) = 1 − erf(x)``.

    By itself it writes a file with Erfc, which ONNX has not, and no runtime loads that.
    """
    del name, arguments
    one = graph.make_const(f"{node.name}/one", np.ones((), np.float32))
    erf = graph.make_node("Erf", [node.input[0]])
    difference = graph.make_node("Sub", [one.output[0], erf.output[0]])
    graph.replace_all_inputs(node.output[0], difference.output[0])
    graph.remove_node(node.name)


def onnx_quantized(source: Path, path: Path, scheme: str, images: np.ndarray) -> None:
    """Quantizes a float32 file with ONNX Runtime's tools and their defaults.

    Args:
        source: what ``onnx`` wrote.
        path: file to write.
        scheme: ``fp16``, ``dynamic`` or ``static`` (QDQ).
        images: uint8 ``(N, H, W, C)``, which calibrate ``static``.
    """
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    if scheme == "dynamic":
        quantize_dynamic(source, path)
    elif scheme == "static":
        quantize_static(source, path, _Reader(source, images))
    else:
        import onnx as library
        from onnxruntime.transformers.float16 import convert_float_to_float16

        half = convert_float_to_float16(library.load(source), keep_io_types=True)
        path.write_bytes(half.SerializeToString())


class _Reader:
    """Gives the calibration images one by one."""

    def __init__(self, source: Path, images: np.ndarray) -> None:
        import onnx as library

        self.name = library.load(source).graph.input[0].name
        self.left = iter(images.astype(np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next input, None at the end."""
        image = next(self.left, None)
        return None if image is None else {self.name: image[np.newaxis]}
