"""Finishes an ONNX graph: metadata, the check of onnx.checker, and the bytes of the file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cct_export.errors import ConversionError
from cct_export.text import one_line

# Constants up to this size are checked with the graph.
_CHECKED_BYTES = 2**16


def checked(model: Any, metadata: Mapping[str, str | bytes]) -> bytes:
    """Adds metadata to a ``ModelProto``, checks it, and returns it serialized.

    Raises:
        ConversionError: onnx.checker refused the graph.
    """
    import onnx

    _part_padding_from_pools(model.graph)
    for name, text in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    try:
        onnx.checker.check_model(_without_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"onnx.checker refused the graph: {one_line(error)}") from error
    return bytes(model.SerializeToString())


def _without_weights(model: Any) -> Any:
    """Returns a ``ModelProto`` whose large constants are inputs: the checker copies what it gets.

    What it infers shapes of, such as the sizes that a Reshape takes, is small.
    """
    from onnx import helper

    light = type(model)()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(light, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(light.graph, field.name, value)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= _CHECKED_BYTES:
            light.graph.initializer.append(tensor)
        else:
            weights = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(weights)
    return light


def _copy(message: Any, name: str, value: Any) -> None:
    """Sets a field of a protocol buffer to the value that the field has in another one."""
    if isinstance(value, int | str | bytes):
        setattr(message, name, value)
    else:
        getattr(message, name).MergeFrom(value)


def _part_padding_from_pools(graph: Any) -> None:
    """Puts a Reshape that changes nothing between a Pad and a MaxPool.

    ONNX Runtime makes the zeros of a Pad part of the pool's own padding, which is −∞: a maximum of
    negative values then comes out negative. It does not look through a Reshape, which costs
    nothing.
    """
    from onnx import helper, numpy_helper

    padded = {name for node in graph.node if node.op_type == "Pad" for name in node.output}
    pools = [n for n in graph.node if n.op_type == "MaxPool" and n.input[0] in padded]
    for pool in pools:
        shape, apart = f"{pool.output[0]}/padded_shape", f"{pool.output[0]}/padded"
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, -1]), shape))
        reshape = helper.make_node("Reshape", [pool.input[0], shape], [apart], apart)
        graph.node.insert(list(graph.node).index(pool), reshape)
        pool.input[0] = apart
