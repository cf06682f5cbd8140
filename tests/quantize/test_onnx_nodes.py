"""Quantized ONNX graphs: which nodes are integer, and that no product of activations is."""

import math
from collections import Counter

import pytest

WEIGHTED = {"Conv": 2, "dense": 10}  # per block query, output and 2 in the MLP; pooling and logits
PRODUCTS = 5
DENSE = ("MatMul", "Gemm")


class Graph:
    """An ONNX graph with the maker of every value at hand."""

    def __init__(self, path):
        import onnx

        self.graph = onnx.load(path).graph
        self.nodes = list(self.graph.node)
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.maker = {value: node for node in self.nodes for value in node.output}
        self.count = Counter(node.op_type for node in self.nodes)

    def makers(self, node):
        """Operators that make the first two inputs, ``constant`` for a weight."""
        return [
            "constant" if name in self.constants else self.maker[name].op_type
            for name in node.input[:2]
        ]

    def readers(self, node):
        return [other.op_type for other in self.nodes if node.output[0] in other.input]

    def of(self, *types):
        return [node for node in self.nodes if node.op_type in types]

    def type_of(self, name):
        import onnx

        return onnx.TensorProto.DataType.Name(self.constants[name].data_type)


def test_int8_has_qdq_around_convolutions_and_weighted_products_and_nowhere_else(exports):
    graph = Graph(exports("onnx", "int8").path)
    quantized = {"Conv": 0, "dense": 0}
    products = 0
    for node in graph.of("Conv", *DENSE):
        makers = graph.makers(node)
        if makers == ["DequantizeLinear"] * 2:
            weight = graph.maker[node.input[1]].input[0]
            assert graph.type_of(weight) == "INT8"
            assert graph.readers(node) == ["QuantizeLinear"]
            quantized["Conv" if node.op_type == "Conv" else "dense"] += 1
        else:
            assert "constant" not in makers, f"{node.name} has weights and is not quantized"
            assert "DequantizeLinear" not in makers
            assert "QuantizeLinear" not in graph.readers(node)
            products += 1
    assert quantized == WEIGHTED
    assert products == PRODUCTS


def test_int8_quantizes_a_convolution_together_with_its_relu(exports):
    assert Graph(exports("onnx", "none").path).count["Relu"] == 2
    graph = Graph(exports("onnx", "int8").path)
    assert graph.count["Relu"] == 0
    for node in graph.of("Conv"):
        (writer,) = [other for other in graph.nodes if node.output[0] in other.input]
        zero_point = graph.constants[writer.input[2]]
        assert zero_point.raw_data in (b"", b"\0") and not any(zero_point.int32_data)


def test_int8_dynamic_multiplies_every_dense_weight_in_integers_and_no_product(exports):
    graph = Graph(exports("onnx", "int8-dynamic").path)
    assert graph.count["MatMulInteger"] == WEIGHTED["dense"]
    assert graph.count["Gemm"] == 0
    assert graph.count["MatMul"] == PRODUCTS
    for node in graph.of("MatMulInteger"):
        assert graph.makers(node) == ["DynamicQuantizeLinear", "constant"]
        assert graph.type_of(node.input[1]) == "INT8"
    for node in graph.of("MatMul"):
        assert "constant" not in graph.makers(node)


def test_int8_dynamic_convolves_in_float_on_int8_weights(exports):
    graph = Graph(exports("onnx", "int8-dynamic").path)
    assert graph.count["Conv"] == WEIGHTED["Conv"]
    for node in graph.of("Conv"):
        before, weights = graph.makers(node)
        assert weights == "DequantizeLinear"
        assert "Quantize" not in before
        stored = graph.maker[node.input[1]].input
        assert graph.type_of(stored[0]) == "INT8"
        channels = graph.constants[stored[0]].dims[0]
        assert list(graph.constants[stored[1]].dims) == [channels]


def test_fp16_keeps_every_weight_in_half_the_bytes_and_its_ends_in_float32(exports):
    import onnx

    graph = Graph(exports("onnx", "fp16").path)
    weights = [
        node.input[1] for node in graph.of("Conv", *DENSE) if "constant" in graph.makers(node)
    ]
    assert len(weights) == sum(WEIGHTED.values())
    assert {graph.type_of(name) for name in weights} == {"FLOAT16"}
    for end in (*graph.graph.input, *graph.graph.output):
        assert end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_float_graphs_hold_no_quantization(exports):
    graph = Graph(exports("onnx", "none").path)
    assert graph.count["Conv"] == WEIGHTED["Conv"]
    assert graph.count["MatMul"] + graph.count["Gemm"] == WEIGHTED["dense"] + PRODUCTS
    assert not {name for name in graph.count if "Quantize" in name or "Integer" in name}


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic"])
def test_every_weight_is_in_the_file_once_and_in_8_bits(exports, scheme):
    whole = Graph(exports("onnx", "none").path)
    sizes = sorted(
        tuple(whole.constants[node.input[1]].dims)
        for node in whole.of("Conv", *DENSE)
        if "constant" in whole.makers(node)
    )
    graph = Graph(exports("onnx", scheme).path)
    types = {name: graph.type_of(name) for name in graph.constants}
    small = [
        tuple(graph.constants[name].dims)
        for name, type in types.items()
        if type == "INT8" and len(graph.constants[name].dims) >= 2
    ]
    assert sorted(small) == sizes
    floats = [t for name, t in graph.constants.items() if types[name] == "FLOAT"]
    assert not [t.name for t in floats if len(t.dims) >= 2 and t.name in _weights(whole)]
    assert sum(_count(t) for t in floats) < 0.3 * sum(_count(t) for t in whole.constants.values())


def _weights(graph):
    return {node.input[1] for node in graph.of("Conv", *DENSE)}


def _count(tensor):
    return math.prod(tensor.dims)


def test_int8_products_and_their_keys_read_what_was_there_before_quantization(exports):
    graph = Graph(exports("onnx", "int8").path)
    products = [n for n in graph.of("MatMul") if graph.makers(n) != ["DequantizeLinear"] * 2]
    keys = [graph.maker[name] for node in products for name in node.input if name in graph.maker]
    transposes = [node for node in keys if node.op_type == "Transpose"]
    assert (len(products), len(transposes)) == (PRODUCTS, 2)
    for node in products + transposes:
        assert "DequantizeLinear" not in graph.makers(node)
