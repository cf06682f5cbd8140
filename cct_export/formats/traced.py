"""Exports any Keras image classifier: traced at inference, converted by the stock converters.

A traced model is converted to float32, possibly quantized by ``quantize.traced``, and finished:
only then it gets the type of its input and its metadata.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from cct_export.errors import ConversionError
from cct_export.formats.flatbuffer import add_metadata
from cct_export.formats.onnx_graph import checked
from cct_export.graph.plan import Plan
from cct_export.model.outputs import outputs_of
from cct_export.specs import ExportSpec, choose_opset

# What tf2onnx supports.
ONNX_OPSETS = range(13, 19)
DEFAULT_ONNX_OPSET = 18
# Raw pixels have scale 1: p arrives as p (uint8) or p − 128 (int8).
_ZERO_POINTS = {"uint8": 0, "int8": -128}


def inference_model(model: keras.Model) -> keras.Model:
    """Returns ``model`` without its augmentation layers, sharing its weights.

    Random flips, crops and the like do nothing at inference, but a tracer still records their
    random state: Keras' own ONNX export then writes operators that no runtime has. This removes
    layers of random augmentation that keep the shape, in nested models too.

    Args:
        model: a built Functional or Sequential model with one input.

    Returns:
        A model with the same logits for the same images at ``training=False``.

    Raises:
        ConversionError: the model is subclassed, so its layers are unknown.
    """
    if not _has_known_layers(model):
        raise ConversionError(
            f"{type(model).__name__} is a subclassed model: build it with the functional API"
        )
    (tensor,) = model.inputs
    image = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    return keras.Model(image, _apply(model, image))


def _apply(model: keras.Model, tensor: Any) -> Any:
    """Calls ``model`` on a symbolic tensor, without its augmentation."""
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            tensor = _call(layer, tensor)
        return tensor
    clone = keras.models.clone_model(
        model, input_tensors=tensor, clone_function=lambda layer: layer, call_function=_call
    )
    return clone.output


def _call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
    if _has_known_layers(layer):
        return _apply(layer, *arguments)
    if _is_augmentation(layer):
        (images,) = arguments
        if tuple(layer.compute_output_shape(images.shape)) == tuple(images.shape):
            return images
    return layer(*arguments, **keywords)


def _has_known_layers(layer: Any) -> bool:
    """Returns whether a layer is a Sequential model or a functional graph of operations."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "operations")
    )


def _is_augmentation(layer: Any) -> bool:
    """Returns whether a layer changes images at random, and only while training.

    Keras has no public base class for them, so module and name decide. Resizing, AutoContrast,
    Solarization and the like change images at inference too, and stay.
    """
    module = type(layer).__module__
    return "image_preprocessing" in module and type(layer).__name__.startswith(
        ("Rand", "Aug", "Mix", "Cut")
    )


def _frozen_function(model: keras.Model, batch: int | None) -> Any:
    """Traces ``model`` at inference and turns its weights into constants.

    Args:
        model: an image classifier.
        batch: images per call, None for any number.

    Returns:
        A ``tf.function`` with a fixed signature, from ``image`` float32 ``(batch, H, W, C)``,
        0–255, to a dict of outputs by name, see ``outputs_of``.

    Raises:
        ConversionError: Keras runs on another backend than TensorFlow, or the model has operators
            that only training needs.
    """
    if keras.backend.backend() != "tensorflow":
        raise ConversionError(
            f"conversion needs Keras on TensorFlow, not on {keras.backend.backend()}: "
            "start the process with KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    inference = inference_model(model)
    shape = (batch, *model.inputs[0].shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32, name=Plan.INPUT)]
    traced = tf.function(lambda image: inference(image, training=False), input_signature=signature)
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    random = sorted({op.type for op in frozen.graph.get_operations() if "Random" in op.type})
    if random:
        raise ConversionError(f"operators that draw random numbers remain: {', '.join(random)}")
    names = _output_names(model)
    return tf.function(
        lambda image: dict(zip(names, frozen(image), strict=True)), input_signature=signature
    )


def _output_names(model: keras.Model) -> list[str]:
    return [output.name for output in outputs_of(model)]


def convert_tflite(model: keras.Model, spec: ExportSpec) -> bytes:
    """Converts a model with builtin operators only, batch 1, signature ``serving_default``.

    Args:
        model: an image classifier.
        spec: not used; TFLite files take one image.

    Returns:
        The flatbuffer: ``image`` float32 ``(1, H, W, C)``, 0–255, to the outputs of the model as
        float32, in their order.

    Raises:
        ConversionError: the model has operators that TFLite's builtins lack.
    """
    import tensorflow as tf

    function = _frozen_function(model, batch=1).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        content: bytes = converter.convert()
    except Exception as error:  # the converter raises bare Exceptions
        missing = sorted(set(re.findall(r"'(tf\.\w+)' op", str(error))))
        reason = f"no builtin for {', '.join(missing)}" if missing else str(error)
        raise ConversionError(f"TFLite's converter refused the model: {reason}") from error
    return _in_order(content, _output_names(model))


def _in_order(content: bytes, names: list[str]) -> bytes:
    """Returns a flatbuffer with its outputs in this order: the converter sorts them by name."""
    if len(names) == 1:
        return content
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    indices = {entry.name.decode(): entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    model.subgraphs[0].outputs = np.asarray([indices[name] for name in names], np.int32)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def convert_onnx(model: keras.Model, spec: ExportSpec) -> bytes:
    """Converts a model with tf2onnx.

    Args:
        model: an image classifier.
        spec: ``opset`` (18 if None) and ``dynamic_batch`` are used.

    Returns:
        The serialized graph: ``image`` float32 ``(batch, H, W, C)``, 0–255, to ``logits`` float32
        ``(batch, classes)``.

    Raises:
        InvalidRequest: unknown opset.
        ConversionError: the model has operators that ONNX lacks.
    """
    opset = choose_opset(spec, ONNX_OPSETS, DEFAULT_ONNX_OPSET)
    import tf2onnx

    function = _frozen_function(model, batch=None if spec.dynamic_batch else 1)
    try:
        graph, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=opset
        )
    except Exception as error:  # tf2onnx raises what its handlers raise
        raise ConversionError(f"tf2onnx refused the model: {error}") from error
    outputs = {value.name: value for value in graph.graph.output}
    del graph.graph.output[:]
    graph.graph.output.extend(outputs[name] for name in _output_names(model))
    content: bytes = graph.SerializeToString()
    return content


def finish_tflite(content: bytes, io: str, metadata: Mapping[str, str]) -> bytes:
    """Gives a float32 flatbuffer an input of type ``io``, and metadata.

    Args:
        content: the flatbuffer.
        io: ``float32``, ``uint8`` or ``int8``.
        metadata: names and texts.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if io != "float32":
        _dequantize_input(model, io)
    add_metadata(model, metadata)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _dequantize_input(model: Any, io: str) -> None:
    """Inserts a DEQUANTIZE of scale 1 before the graph, whose input then has type ``io``."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    float_image = int(graph.inputs[0])
    image = schema.TensorT()
    image.shape = graph.tensors[float_image].shape
    image.shapeSignature = graph.tensors[float_image].shapeSignature
    image.type = getattr(schema.TensorType, io.upper())
    image.name = Plan.INPUT.encode()
    image.quantization = schema.QuantizationParametersT()
    image.quantization.scale = np.asarray([1.0], np.float32)
    image.quantization.zeroPoint = np.asarray([_ZERO_POINTS[io]], np.int64)
    graph.tensors.append(image)
    index = len(graph.tensors) - 1

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2  # the first that takes int8
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.asarray([index], np.int32)
    operator.outputs = np.asarray([float_image], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    graph.operators.insert(0, operator)
    graph.inputs = np.asarray([index], np.int32)
    for signature in model.signatureDefs or []:
        for entry in signature.inputs:
            if entry.tensorIndex == float_image:
                entry.tensorIndex = index


def finish_onnx(content: bytes, io: str, metadata: Mapping[str, str]) -> bytes:
    """Gives a serialized float32 graph an input of type ``io``, and metadata; checks it.

    Args:
        content: the graph.
        io: ``float32`` or ``uint8``.
        metadata: names and texts.

    Raises:
        ConversionError: onnx.checker refused the graph.
    """
    import onnx

    model = onnx.load_from_string(content)
    if io == "uint8":
        _cast_input(model)
    # onnxruntime's tools leave domains behind that no node uses.
    domains = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in domains]:
        model.opset_import.remove(opset)
    return checked(model, metadata)


def _cast_input(model: Any) -> None:
    """Inserts a Cast from uint8 before the graph."""
    import onnx

    float_image = "image_float32"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == Plan.INPUT:
                node.input[index] = float_image
    cast = onnx.helper.make_node(
        "Cast", [Plan.INPUT], [float_image], "image_cast", to=onnx.TensorProto.FLOAT
    )
    model.graph.node.insert(0, cast)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


Converter = Callable[[keras.Model, ExportSpec], bytes]
CONVERTERS: dict[str, Converter] = {"tflite": convert_tflite, "onnx": convert_onnx}
Finisher = Callable[[bytes, str, Mapping[str, str]], bytes]
FINISHERS: dict[str, Finisher] = {"tflite": finish_tflite, "onnx": finish_onnx}
