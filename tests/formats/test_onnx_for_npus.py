"""ONNX files for NPUs: every operator between QDQ pairs, and what the engine makes of them."""

from collections import Counter, defaultdict

import numpy as np
import onnx
import pytest
from emitted import onnx_session, read_onnx
from onnx import TensorProto, numpy_helper

SCHEMES = {"int8-full": TensorProto.UINT8, "int16x8": TensorProto.UINT16}
QDQ = ("QuantizeLinear", "DequantizeLinear")
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)


class Graph:
    """A graph of bytes or of a path, with producers and consumers of every tensor."""

    def __init__(self, source):
        self.model = read_onnx(source)
        self.graph = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.consumers = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.consumers[name].append(node)
        self.operators = [node for node in self.graph.node if node.op_type not in QDQ]
        self.count = Counter(node.op_type for node in self.operators)

    def is_float(self, name):
        return name not in self.constants or self.constants[name].data_type == TensorProto.FLOAT

    def outside(self):
        """Inputs and outputs of operators that no pair is at, but between a sum and its ReLU."""
        for node in self.operators:
            for name in node.input:
                producer = self.producer.get(name)
                kind = producer.op_type if producer else "constant or image"
                fused = node.op_type == "Relu" and kind in ("Conv", "Gemm")
                if self.is_float(name) and kind != "DequantizeLinear" and not fused:
                    yield f"{kind} before {node.name}"
            kinds = {consumer.op_type for consumer in self.consumers[node.output[0]]}
            if kinds not in ({"QuantizeLinear"}, {"Relu"}):
                yield f"{kinds} after {node.name}"

    def types(self, kind):
        """Types of the integers of all nodes of a kind, QuantizeLinear or DequantizeLinear."""
        return {
            self.constants[node.input[2]].data_type
            for node in self.graph.node
            if node.op_type == kind and len(node.input) > 2
        }


@each_scheme
@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_every_operator_is_between_qdq_pairs_of_one_type(exports, scheme, io):
    graph = Graph(exports("onnx", scheme, io).path)
    assert list(graph.outside()) == []
    assert graph.types("QuantizeLinear") == {SCHEMES[scheme]}
    assert graph.count["LayerNormalization"] == 5
    assert graph.count["Gelu"] == 4
    assert not graph.count.keys() & {"Cast", "Erf", "Tanh", "Sqrt", "Pow"}


@each_scheme
def test_image_and_logits_are_float32_of_one_image_between_pairs(exports, scheme):
    graph = Graph(exports("onnx", scheme).path)
    for end in (*graph.graph.input, *graph.graph.output):
        assert end.type.tensor_type.elem_type == TensorProto.FLOAT
        assert all(size.dim_value > 0 for size in end.type.tensor_type.shape.dim)
    (first,) = graph.consumers["image"]
    assert first.op_type == "QuantizeLinear"
    assert graph.producer["logits"].op_type == "DequantizeLinear"
    scale = numpy_helper.to_array(graph.constants[first.input[1]])
    assert scale == np.float32(1 if scheme == "int8-full" else 1 / 257)  # pixels are exact


@each_scheme
def test_every_shape_is_known_without_running_the_graph(exports, scheme):
    graph = Graph(exports("onnx", scheme).path).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    for node in graph.node[:-1]:
        for name in node.output:
            assert all(size.dim_value > 0 for size in shapes[name]), name


@each_scheme
def test_weights_are_int8_per_channel_and_biases_int32_in_units_of_the_products(exports, scheme):
    graph = Graph(exports("onnx", scheme).path)
    weighted = [node for node in graph.operators if node.op_type in ("Conv", "Gemm")]
    assert len(weighted) >= 12
    for node in weighted:
        kernel = graph.producer[node.input[1]]
        assert graph.constants[kernel.input[0]].data_type == TensorProto.INT8
        scales = numpy_helper.to_array(graph.constants[kernel.input[1]])
        axis = 0 if node.op_type == "Conv" else 1
        assert scales.shape == (graph.constants[kernel.input[0]].dims[axis],)
        if len(node.input) < 3:
            continue
        bias, source = graph.producer[node.input[2]], graph.producer[node.input[0]]
        assert graph.constants[bias.input[0]].data_type == TensorProto.INT32
        unit = numpy_helper.to_array(graph.constants[source.input[1]]) * scales
        np.testing.assert_allclose(
            numpy_helper.to_array(graph.constants[bias.input[1]]), unit, rtol=1e-5
        )


def test_gamma_is_uint8_whatever_the_activations_are(exports):
    for scheme in SCHEMES:
        graph = Graph(exports("onnx", scheme).path)
        for node in graph.operators:
            if node.op_type == "LayerNormalization":
                gamma = graph.producer[node.input[1]].input[0]
                assert graph.constants[gamma].data_type == TensorProto.UINT8


def test_onnx_runtime_computes_integers_with_8_bits(exports):
    from cct_export.runtimes.onnxruntime_profile import kernels

    counts = kernels(exports("onnx", "int8-full").path)
    assert counts["QLinearConv"] == 2
    assert counts["QLinearMatMul"] == 5


@each_scheme
def test_the_mobile_usability_checker_sees_no_dynamic_shape(exports, scheme, caplog):
    """ONNX Runtime's own checker; of the mobile providers that it knows, NNAPI takes QDQ pairs."""
    import logging

    from onnxruntime.tools.mobile_helpers import usability_checker

    logger = logging.getLogger("usability")
    with caplog.at_level(logging.INFO, logger="usability"):
        usability_checker.analyze_model(exports("onnx", scheme).path, logger=logger)
    said = caplog.text
    assert "Checking NNAPI" in said
    assert "ynamic" not in said
    (unsupported, *_) = [line for line in said.splitlines() if "Unsupported ops" in line]
    assert unsupported.split("Unsupported ops: ")[1] == "ai.onnx:Gelu,ai.onnx:LayerNormalization"


@each_scheme
def test_the_file_takes_one_image_and_opens_without_warnings(exports, scheme, capfd):
    session = onnx_session(exports("onnx", scheme).path)
    assert session.get_inputs()[0].shape == [1, 32, 32, 3]
    assert capfd.readouterr().err == ""
