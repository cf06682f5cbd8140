"""What files for TFLite Micro have in place of operators that it lacks, or that cost it memory."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from cct_export.errors import UnsupportedScheme
from cct_export.formats.flatbuffer import FlatGraph, Quantization
from cct_export.formats.tflite_graph import TfliteGraph
from cct_export.graph import steps
from cct_export.graph.interpret import compute
from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Step
from cct_export.operator_lists import OPERATOR_LISTS, OperatorUse

# Of the 32-bit positions in a table at a time. Smaller slices save nothing: operators need memory.
_SLICE_BYTES = 2**17
# CONCATENATION takes ten tensors.
_MOST_SLICES = 10


def is_table(step: Step) -> bool:
    """Returns whether a step, a function of one 8-bit integer, is written as a table.

    TFLite Micro has no GELU and no EXP of integers, computes sigmoids less exactly than LiteRT, and
    its ReLU6 does not rescale. Its ReLU is that of LiteRT.
    """
    if isinstance(step, steps.Activation):
        return step.function != "relu"
    return isinstance(step, steps.Gelu | steps.Exp)


def add_table(writer: TfliteGraph, step: Step, x: int) -> int:
    """Adds a function of 8-bit integers as a table of its 256 values; returns its output.

    GATHER takes 32-bit positions from 0 on. Making them takes eight times the memory of the
    integers, so a large tensor is looked up slice by slice.
    """
    graph, name = writer.graph, step.output
    source, result = (writer.quantized.qparams[tensor] for tensor in (step.inputs[0], name))
    shape = (1, *writer.plan.shapes[name])
    params = Quantization(result.scale, result.zero_point)
    table = graph.constant(f"{name}/table", _values(step, source, result), "INT8", params)
    count, axis = _slices(shape)
    if count == 1:
        return _looked_up(graph, name, x, table, params)
    size = [length // count if at == axis else length for at, length in enumerate(shape)]
    sizes = graph.constant(f"{name}/size", np.array(size), "INT32")
    parts = []
    for part in range(count):
        label = f"{name}/{part}"
        start = [part * size[axis] if at == axis else 0 for at in range(len(shape))]
        begin = graph.constant(f"{label}/begin", np.array(start), "INT32")
        given = Quantization(source.scale, source.zero_point)
        sliced = graph.tensor(f"{label}/slice", tuple(size), "INT8", quantization=given)
        graph.operator("SLICE", [x, begin, sizes], sliced, "SliceOptions")
        parts.append(_looked_up(graph, label, sliced, table, params))
    output = graph.tensor(name, shape, "INT8", quantization=params)
    return graph.operator("CONCATENATION", parts, output, "ConcatenationOptions", axis=axis)


def _values(step: Step, source: QuantParams, result: QuantParams) -> np.ndarray:
    """Returns what a function makes of every 8-bit integer, in integers."""
    # The file has the scales in float32.
    stored = (source.scale.astype(np.float32), result.scale.astype(np.float32))
    input_scale, output_scale = (scale.astype(np.float64) for scale in stored)
    reals = (np.arange(-128, 128) - source.zero_point) * input_scale
    return replace(result, scale=output_scale).quantize(compute(step, reals))


def _slices(shape: steps.Shape) -> tuple[int, int]:
    """Returns a number of equal slices, the smallest that will do, and their axis."""
    possible = [
        (count, axis)
        for axis, length in enumerate(shape)
        for count in range(1, _MOST_SLICES + 1)
        if length % count == 0
    ]
    size = np.dtype(np.int32).itemsize * math.prod(shape)
    fitting = [each for each in possible if size <= each[0] * _SLICE_BYTES]
    return min(fitting, default=max(possible))


def _looked_up(graph: FlatGraph, name: str, x: int, table: int, params: Quantization) -> int:
    """Adds what a table has for every 8-bit integer of ``x``."""
    types, shape = graph.schema.TensorType, tuple(graph.graph.tensors[x].shape)
    wide = graph.operator(
        "CAST",
        [x],
        graph.tensor(f"{name}/wide", shape, "INT32"),
        "CastOptions",
        inDataType=types.INT8,
        outDataType=types.INT32,
    )
    offset = graph.constant("offset", np.array([128]), "INT32")
    positions = graph.tensor(f"{name}/positions", shape, "INT32")
    graph.operator("ADD", [wide, offset], positions, "AddOptions")
    output = graph.tensor(name, shape, "INT8", quantization=params)
    return graph.operator("GATHER", [table, positions], output, "GatherOptions", axis=0)


def check(content: bytes, source: str) -> None:
    """Refuses a flatbuffer with operators that TFLite Micro does not have.

    Args:
        content: the flatbuffer.
        source: the model that it was made of, for the message.

    Raises:
        UnsupportedScheme: it has; all of them are named.
    """
    if missing := OPERATOR_LISTS["tflm"].missing(operator_uses(content)):
        raise UnsupportedScheme(
            f"TFLite Micro has no {', '.join(missing)}, which {source} needs: leave --target out "
            "for a file that LiteRT runs",
            needs="operators of TFLite Micro",
        )


def operator_uses(content: bytes) -> Iterator[OperatorUse]:
    """Yields the operators of a flatbuffer with their versions and types."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    names = {number: name.lower() for name, number in vars(schema.TensorType).items()}
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [
                graph.tensors[index]
                for index in (*operator.inputs, *operator.outputs)
                if index >= 0
            ]
            types: dict[bool, set[str]] = {True: set(), False: set()}
            for tensor in tensors:
                types[model.buffers[tensor.buffer].data is not None].add(names[tensor.type])
            yield OperatorUse(
                flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) or "CUSTOM",
                model.operatorCodes[operator.opcodeIndex].version,
                frozenset(types[False]),
                frozenset(types[True]),
            )
