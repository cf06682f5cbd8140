"""Editing a finished TFLite flatbuffer: metadata and the type of its input."""

import json
from typing import Any

import numpy as np

from cct_export.records import CONTRACT_KEY

# A raw pixel p arrives as p (uint8) or p - 128 (int8): scale 1, and this zero point.
_ZERO_POINT = {"uint8": 0, "int8": -128}


def finish(content: bytes, io: str, contract: dict[str, Any]) -> bytes:
    """Gives the input the type ``io`` and puts ``contract`` into the file.

    Args:
        content: a flatbuffer whose input is float32, or of the type ``io``.
        io: ``float32``, ``uint8`` or ``int8``.
        contract: JSON-able record, stored as a metadata buffer.

    Returns:
        The new flatbuffer.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    image = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    if io != "float32" and image.type == schema.TensorType.FLOAT32:
        _quantized_door(model, io)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(contract).encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = CONTRACT_KEY.encode()
    entry.buffer = len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _quantized_door(model: Any, io: str) -> None:
    """Puts a DEQUANTIZE (scale 1) before the graph."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    inside = int(graph.inputs[0])
    door = schema.TensorT()
    door.shape = graph.tensors[inside].shape
    door.shapeSignature = graph.tensors[inside].shapeSignature
    door.type = getattr(schema.TensorType, io.upper())
    door.name = b"image"
    door.quantization = schema.QuantizationParametersT()
    door.quantization.scale = np.asarray([1.0], np.float32)
    door.quantization.zeroPoint = np.asarray([_ZERO_POINT[io]], np.int64)
    graph.tensors.append(door)
    outside = len(graph.tensors) - 1

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    # Version 2 is the one that takes int8.
    code.version = 2
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.asarray([outside], np.int32)
    operator.outputs = np.asarray([inside], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    graph.operators.insert(0, operator)
    graph.inputs = np.asarray([outside], np.int32)
    for signature in model.signatureDefs or []:
        for entry in signature.inputs:
            if entry.tensorIndex == inside:
                entry.tensorIndex = outside
