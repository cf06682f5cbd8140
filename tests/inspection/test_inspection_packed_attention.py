"""Inspection of attention that ONNX Runtime computes as one operator."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cct_export.inspection import onnx_graph


def test_packed_attention_has_its_projection_its_products_and_its_sums():
    heads, tokens, width = 2, 5, 8
    constants = [
        numpy_helper.from_array(np.ones((width, 3 * width), np.int8), "w"),
        numpy_helper.from_array(np.zeros(3 * width, np.float32), "b"),
        numpy_helper.from_array(np.full(3 * width, 0.5, np.float32), "ws"),
        numpy_helper.from_array(np.array(0.25, np.float32), "xs"),
        numpy_helper.from_array(np.array(3, np.uint8), "xz"),
    ]
    node = helper.make_node(
        "QAttention", ["x", "w", "b", "xs", "ws", "", "xz"], ["y"],
        domain="com.microsoft", num_heads=heads,
    )  # fmt: skip
    values = {
        "x": onnx_graph.Value("uint8", (1, tokens, width)),
        "y": onnx_graph.Value("float32", (1, tokens, width)),
    }
    ends = [
        helper.make_tensor_value_info(name, kind, [1, tokens, width])
        for name, kind in (("x", onnx.TensorProto.UINT8), ("y", onnx.TensorProto.FLOAT))
    ]
    node.name = "0"
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], constants))
    graph = onnx_graph.Graph(model, values)
    (operator,) = graph.operators({})
    assert operator.macs == tokens * width * 3 * width + 2 * tokens * tokens * width
    assert operator.weight_dtype == "int8"
    assert {t.name: t.granularity for t in graph.quantized()} == {"x": "tensor", "w": "channel"}
