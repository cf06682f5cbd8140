"""Building an ONNX graph, node by node."""

from typing import Any

import numpy as np

# Name, numpy type and shape of an end of the graph; the batch may be a word.
End = tuple[str, str, list[int | str]]


class NodeList:
    """The nodes and constants of a graph, known by their names.

    Args:
        opset: of the operators.
    """

    def __init__(self, opset: int) -> None:
        import onnx

        self.onnx = onnx
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node of ONNX' own with one output; returns its name."""
        node = self.onnx.helper.make_node(kind, inputs, [output], output, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """Adds a constant, once per name, as int64 if it holds integers, else as float32."""
        return self.stored(name, array, "int64" if array.dtype.kind == "i" else "float32")

    def stored(self, name: str, array: np.ndarray, type: str) -> str:
        """Adds a constant of a type by numpy's name, or ``int4``; returns its name."""
        if type == "int4":
            flat = array.astype(np.int64).reshape(-1)
            four_bits = self.onnx.TensorProto.INT4
            tensor = self.onnx.helper.make_tensor(name, four_bits, array.shape, flat)
        else:
            stored = np.ascontiguousarray(array.astype(type))
            tensor = self.onnx.numpy_helper.from_array(stored, name)
        self.constants[name] = tensor
        return name

    def serialize(self, image: End, logits: End) -> bytes:
        """Returns the graph from its input to its output."""
        helper = self.onnx.helper
        ends = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(type)), shape
            )
            for name, type, shape in (image, logits)
        ]
        constants = list(self.constants.values())
        graph = helper.make_graph(self.nodes, "cct", ends[:1], ends[1:], constants)
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="cct-export")
        # The oldest file format that has the opset: older engines read the file, too.
        model.ir_version = helper.find_min_ir_version_for([opset])
        content: bytes = model.SerializeToString()
        return content
