"""Editing a finished ONNX graph: metadata and the type of its input."""

import json
from typing import Any

from cct_export.errors import ConversionError
from cct_export.graph.plan import Plan
from cct_export.records import CONTRACT_KEY


def finish(content: bytes, io: str, contract: dict[str, Any]) -> bytes:
    """Gives the input the type ``io``, puts ``contract`` into the file, and checks the graph.

    Args:
        content: a serialized graph whose input is float32, or of the type ``io``.
        io: ``float32`` or ``uint8``.
        contract: JSON-able record, stored as a metadata property.

    Returns:
        The new graph, serialized.

    Raises:
        ConversionError: onnx.checker finds fault with the graph.
    """
    import onnx

    model = onnx.load_from_string(content)
    given = model.graph.input[0].type.tensor_type.elem_type
    if io == "uint8" and given == onnx.TensorProto.FLOAT:
        _cast_door(model)
    # onnxruntime's tools leave domains behind that no node is from.
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    entry = model.metadata_props.add()
    entry.key, entry.value = CONTRACT_KEY, json.dumps(contract)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"onnx.checker refused the graph: {error}") from error
    return bytes(model.SerializeToString())


def _cast_door(model: Any) -> None:
    """Puts a Cast from uint8 before the graph."""
    import onnx

    inside = "image_float32"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == Plan.INPUT:
                node.input[index] = inside
    cast = onnx.helper.make_node(
        "Cast", [Plan.INPUT], [inside], "image_cast", to=onnx.TensorProto.FLOAT
    )
    model.graph.node.insert(0, cast)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
