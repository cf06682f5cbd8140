"""Exports any Keras image classifier: traced at inference, converted by the stock converters.

A traced model is converted to float32, possibly quantized by ``quantize.traced``, and finished:
only then it gets the type of its input and its metadata.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from cct_export.errors import ConversionError
from cct_export.formats.flatbuffer import add_metadata, serialized
from cct_export.formats.frozen import (
    LAST_RESORTS,
    SUBSTITUTES,
    frozen_graph,
    function_of,
    output_nodes,
    substituted,
)
from cct_export.formats.onnx_checked import checked
from cct_export.graph.plan import Plan
from cct_export.model.outputs import outputs_of
from cct_export.specs import ExportSpec, opset_of
from cct_export.stock_tools import refusals

# The last that tf2onnx writes; onnx's own converter makes later ones of it.
TF2ONNX_OPSET = 18
# Raw pixels have scale 1: p arrives as p (uint8) or p − 128 (int8).
_ZERO_POINTS = {"uint8": 0, "int8": -128}


def inference_model(model: keras.Model) -> keras.Model:
    """Returns ``model`` without its augmentation layers, sharing its weights.

    Random flips, crops and the like do nothing at inference, but a tracer still records their
    random state: Keras' own ONNX export then writes operators that no runtime has. This removes
    layers of random augmentation that keep the shape, in nested models too.

    Args:
        model: a built Functional or Sequential model.

    Returns:
        A model with the same logits for the same images at ``training=False``.

    Raises:
        ConversionError: the model is subclassed, so its layers are unknown.
    """
    if not _has_known_layers(model):
        raise ConversionError(
            f"{type(model).__name__} is a subclassed model: build it with the functional API"
        )
    expected = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype), expected
    )
    return keras.Model(inputs, _apply(model, inputs))


def _apply(model: keras.Model, tensor: Any) -> Any:
    """Calls ``model`` on symbolic inputs of its own, without its augmentation."""
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            tensor = _call(layer, tensor)
        return tensor
    # Not keras.models.clone_model: it cuts a nested model from the layers before it.
    return model._run_through_graph(keras.tree.flatten(tensor), call_fn=_call)


def _call(layer: Any, *arguments: Any, **keywords: Any) -> Any:
    if _has_known_layers(layer):
        return inference_model(layer)(*arguments)  # a clone of it takes inputs, not any tensors
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
    names = _output_names(model)
    graph = substituted(frozen_graph(inference_model(model), batch=1), SUBSTITUTES["tflite"])
    try:
        return _converted(graph, names)
    except _MissingOperators as error:
        missing = sorted(set(error.args) - LAST_RESORTS.keys())
        if missing:
            operators = ", ".join(f"tf.{name}" for name in missing)
            raise ConversionError(
                f"TFLite's converter refused the model: no builtin for {operators}: compute it of "
                "other operations, or export to ONNX"
            ) from error
        return _converted(substituted(graph, LAST_RESORTS), names)


class _MissingOperators(Exception):
    """TFLite has no builtin for operations; their types are the arguments."""


def _converted(graph: Any, names: Sequence[str]) -> bytes:
    """Returns a frozen graph as a flatbuffer whose outputs have these names.

    Raises:
        _MissingOperators: TFLite has no builtin for some of its operations.
        ConversionError: the converter refused it for another reason.
    """
    import tensorflow as tf

    function = function_of(graph, names).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    with refusals("TFLite's converter", "export to ONNX"):
        try:
            content: bytes = converter.convert()
        except Exception as error:  # the converter raises bare Exceptions
            missing = set(re.findall(r"'tf\.(\w+)' op", str(error)))
            if not missing:
                raise
        else:
            return _with_names(content, names)
    raise _MissingOperators(*missing)


def _with_names(content: bytes, names: Sequence[str]) -> bytes:
    """Gives inputs and outputs the names of the signature; outputs in this order.

    The converter sorts them by name.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    for entry in (*signature.inputs, *signature.outputs):
        graph.tensors[entry.tensorIndex].name = entry.name
    indices = {entry.name.decode(): entry.tensorIndex for entry in signature.outputs}
    graph.outputs = np.asarray([indices[name] for name in names], np.int32)
    return serialized(model)


def convert_onnx(model: keras.Model, spec: ExportSpec) -> bytes:
    """Converts a model with tf2onnx.

    Args:
        model: an image classifier.
        spec: ``opset`` (20 if None), ``dynamic_batch`` and ``layout`` are used.

    Returns:
        The serialized graph: ``image`` float32 in ``spec.layout``, 0–255, to ``logits`` float32
        ``(batch, classes)``.

    Raises:
        InvalidRequest: unknown opset.
        UnsupportedScheme: the opset has no type for the weights of the scheme.
        ConversionError: the model has operators that ONNX lacks.
    """
    opset = opset_of(spec)
    import onnx
    import tf2onnx

    graph = frozen_graph(inference_model(model), batch=None if spec.dynamic_batch else 1)
    names = _output_names(model)
    outputs = {f"{node}:0": name for node, name in zip(output_nodes(graph), names, strict=True)}
    with refusals("tf2onnx", "export to TFLite"):
        converted, _ = tf2onnx.convert.from_graph_def(
            substituted(graph, SUBSTITUTES["onnx"]),
            input_names=[f"{Plan.INPUT}:0"],
            inputs_as_nchw=[f"{Plan.INPUT}:0"] if spec.layout == "nchw" else None,
            output_names=list(outputs),
            tensors_to_rename={f"{Plan.INPUT}:0": Plan.INPUT, **outputs},
            opset=min(opset, TF2ONNX_OPSET),
        )
        missing = sorted({node.op_type for node in _nodes(converted.graph) if not _is_known(node)})
        if missing:
            raise ConversionError(
                f"tf2onnx refused the model: ONNX has no operator for {', '.join(missing)}: "
                "compute it of other operations, or export to TFLite"
            )
        if opset > TF2ONNX_OPSET:
            converted = onnx.version_converter.convert_version(converted, opset)
    values = {value.name: value for value in converted.graph.output}
    del converted.graph.output[:]
    converted.graph.output.extend(values[name] for name in names)
    content: bytes = converted.SerializeToString()
    return content


def _nodes(graph: Any) -> Iterator[Any]:
    """Yields the nodes of an ONNX graph and of those inside, such as a loop's."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_known(node: Any) -> bool:
    import onnx

    return node.domain != "" or bool(onnx.defs.has(node.op_type, node.domain))


def finish_tflite(content: bytes, io: str, metadata: Mapping[str, str | bytes]) -> bytes:
    """Gives a flatbuffer with a float32 input one of type ``io``, and metadata.

    Args:
        content: the flatbuffer; one of integers only has such an input already.
        io: ``float32``, ``uint8`` or ``int8``.
        metadata: names and texts.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    is_float = graph.tensors[int(graph.inputs[0])].type == schema.TensorType.FLOAT32
    if io != "float32" and is_float:
        _dequantize_input(model, io)
    add_metadata(model, metadata)
    return serialized(model)


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


def finish_onnx(content: bytes, io: str, metadata: Mapping[str, str | bytes]) -> bytes:
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
Finisher = Callable[[bytes, str, Mapping[str, str | bytes]], bytes]
FINISHERS: dict[str, Finisher] = {"tflite": finish_tflite, "onnx": finish_onnx}
