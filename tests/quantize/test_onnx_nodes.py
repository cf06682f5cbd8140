"""Quantized ONNX graphs: which nodes are integer, and that no product of activations is."""

import math
from collections import Counter

import pytest
from onnx import numpy_helper

WEIGHTED = {"Conv": 2, "dense": 9}  # per block query, output and 2 in the MLP; the logits
SMALL = 1  # the scores of the pooling
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

    def consumers(self, node):
        return [other.op_type for other in self.nodes if node.output[0] in other.input]

    def of(self, *types):
        return [node for node in self.nodes if node.op_type in types]

    def type_of(self, name):
        import onnx

        return onnx.TensorProto.DataType.Name(self.constants[name].data_type)


def test_int8_has_pairs_around_convolutions_pools_and_weighted_products_and_nowhere_else(exports):
    graph = Graph(exports("onnx", "int8").path)
    quantized = {"Conv": 0, "dense": 0}
    floats = 0
    for node in graph.of("Conv", *DENSE):
        makers = graph.makers(node)
        if makers == ["DequantizeLinear"] * 2:
            weight = graph.maker[node.input[1]].input[0]
            assert graph.type_of(weight) == "INT8"
            quantized["Conv" if node.op_type == "Conv" else "dense"] += 1
        else:
            assert "DequantizeLinear" not in makers
            assert "QuantizeLinear" not in graph.consumers(node)
            floats += 1
    assert quantized == WEIGHTED
    assert floats == PRODUCTS + SMALL
    for node in graph.of("Softmax", "Gelu", "LayerNormalization"):
        assert "DequantizeLinear" not in graph.makers(node)


def test_int8_products_give_floats_and_convolutions_integers(exports):
    graph = Graph(exports("onnx", "int8").path)
    for node in graph.of("Relu", "MaxPool"):
        (reader,) = [other for other in graph.nodes if node.output[0] in other.input]
        # The last map becomes tokens: its channels go last first.
        behind = graph.consumers(reader) if reader.op_type == "Transpose" else [reader.op_type]
        assert behind == ["QuantizeLinear"]
    dense = [n for n in graph.of(*DENSE) if graph.makers(n) == ["DequantizeLinear"] * 2]
    assert {reader for node in dense for reader in graph.consumers(node)} == {"Add"}


def test_int8_quantizes_a_convolution_together_with_its_relu(exports):
    graph = Graph(exports("onnx", "int8").path)
    assert graph.count["Relu"] == 2
    for node in graph.of("Relu"):
        assert graph.makers(node) == ["Conv"]
        (writer,) = [other for other in graph.nodes if node.output[0] in other.input]
        zero_point = graph.constants[writer.input[2]]
        assert graph.type_of(zero_point.name) == "UINT8"
        assert numpy_helper.to_array(zero_point) == 0


def test_for_arm64_activations_are_signed(tmp_path, digits_run, in_process):
    path = tmp_path / "arm.onnx"
    arguments = ("--quantize", "int8", "--target", "arm64", "-o", path)
    ended = in_process("export", "onnx", digits_run, *arguments)
    assert ended.code == 0, ended.err
    graph = Graph(path)
    zero_points = {graph.type_of(node.input[2]) for node in graph.of("QuantizeLinear")}
    assert zero_points == {"INT8"}


def test_what_onnxruntime_runs_of_int8_are_its_integer_kernels(exports):
    from cct_export.runtimes.onnxruntime_profile import kernels

    found = kernels(exports("onnx", "int8").path)
    assert found["QLinearConv"] == WEIGHTED["Conv"]
    assert found["MatMulIntegerToFloat"] == WEIGHTED["dense"] - 1  # the logits are a vector
    assert found["NhwcMaxPool"] == WEIGHTED["Conv"]


def test_what_onnxruntime_runs_of_int8_dynamic_are_its_fused_products(exports):
    from cct_export.runtimes.onnxruntime_profile import kernels

    assert kernels(exports("onnx", "int8-dynamic").path)["DynamicQuantizeMatMul"] == 9


def test_int8_dynamic_multiplies_every_dense_weight_in_integers_and_no_product(exports):
    graph = Graph(exports("onnx", "int8-dynamic").path)
    assert graph.count["MatMulInteger"] == WEIGHTED["dense"]
    assert graph.count["MatMul"] + graph.count["Gemm"] == PRODUCTS + SMALL
    for node in graph.of("MatMulInteger"):
        assert graph.makers(node) == ["DynamicQuantizeLinear", "constant"]
        assert graph.type_of(node.input[1]) == "INT8"


def test_int8_dynamic_convolves_in_float_on_int8_weights_that_are_decoded_once(exports):
    from cct_export.runtimes.onnxruntime_profile import kernels

    path = exports("onnx", "int8-dynamic").path
    graph = Graph(path)
    assert graph.count["Conv"] == WEIGHTED["Conv"]
    for node in graph.of("Conv"):
        before, weights = graph.makers(node)
        assert weights == "Mul"
        assert "Quantize" not in before
        reals, scales = graph.maker[node.input[1]].input
        assert graph.type_of(graph.maker[reals].input[0]) == "INT8"
        kernel = graph.constants[graph.maker[reals].input[0]]
        assert list(graph.constants[scales].dims) == [kernel.dims[0], 1, 1, 1]
    # Folded when the file is read: none of it runs.
    assert not {"Cast", "DequantizeLinear", "Mul"} & set(kernels(path))


def test_fp16_keeps_every_weight_in_half_the_bytes_and_its_ends_in_float32(exports):
    import onnx

    graph = Graph(exports("onnx", "fp16").path)
    casts = [graph.maker[node.input[1]] for node in graph.of("Conv", *DENSE)]
    # What multiplies two activations reads no stored weight.
    stored = [node.input[0] for node in casts if node.op_type == "Cast"]
    assert len(stored) == sum(WEIGHTED.values()) + SMALL
    assert {graph.type_of(name) for name in stored} == {"FLOAT16"}
    for end in (*graph.graph.input, *graph.graph.output):
        assert end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_float_graphs_hold_no_quantization(exports):
    graph = Graph(exports("onnx", "none").path)
    assert graph.count["Conv"] == WEIGHTED["Conv"]
    assert graph.count["MatMul"] + graph.count["Gemm"] == WEIGHTED["dense"] + SMALL + PRODUCTS
    assert not {name for name in graph.count if "Quantize" in name or "Integer" in name}


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic"])
def test_every_weight_is_in_the_file_once_and_in_8_bits(exports, scheme):
    whole = Graph(exports("onnx", "none").path)
    sizes = sorted(
        tuple(whole.constants[node.input[1]].dims)
        for node in whole.of("Conv", *DENSE)
        if "constant" in whole.makers(node) and 1 not in whole.constants[node.input[1]].dims
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
    assert not [
        t.name for t in floats if len(t.dims) >= 2 and 1 not in t.dims and t.name in _weights(whole)
    ]
    assert sum(_count(t) for t in floats) < 0.3 * sum(_count(t) for t in whole.constants.values())


def _weights(graph):
    return {node.input[1] for node in graph.of("Conv", *DENSE)}


def _count(tensor):
    return math.prod(tensor.dims)
