"""The nodes of quantized ONNX graphs: which of them are integer, and which stay float."""

import math
from collections import Counter

import pytest
from onnx import numpy_helper

WEIGHTED = {"Conv": 2, "dense": 9}  # per block query, output and 2 in the MLP; the logits
FLOAT_CONVS = 1  # that of the image
SMALL = 1  # the scores of the pooling
PRODUCTS = 5
DENSE = ("MatMul", "Gemm")


class Graph:
    """An ONNX graph with the producer of every tensor."""

    def __init__(self, path):
        import onnx

        self.graph = onnx.load(path).graph
        self.nodes = list(self.graph.node)
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producer = {value: node for node in self.nodes for value in node.output}
        self.count = Counter(node.op_type for node in self.nodes)

    def producers(self, node):
        """The operators that produce the first two inputs, ``constant`` for a weight."""
        return [
            "constant" if name in self.constants else self.producer[name].op_type
            for name in node.input[:2]
        ]

    def consumers(self, node):
        return [other.op_type for other in self.nodes if node.output[0] in other.input]

    def of(self, *types):
        return [node for node in self.nodes if node.op_type in types]

    def type_of(self, name):
        import onnx

        return onnx.TensorProto.DataType.Name(self.constants[name].data_type)


@pytest.fixture(scope="module")
def pure_int8(tmp_path_factory, digits_run):
    """An ``int8`` file of standard operators."""
    import cct_export

    path = tmp_path_factory.mktemp("pure") / "int8.onnx"
    exported = cct_export.export_onnx(digits_run, scheme="int8", output=path, pure_onnx=True)
    assert exported.parity.passed
    assert exported.engine_operators == ()
    return path


def test_int8_has_qdq_pairs_around_convolutions_and_dense_layers_and_nowhere_else(pure_int8):
    graph = Graph(pure_int8)
    assert {node.domain for node in graph.nodes} == {""}
    quantized = {"Conv": 0, "dense": 0}
    floats = 0
    for node in graph.of("Conv", *DENSE):
        producers = graph.producers(node)
        if producers == ["DequantizeLinear"] * 2:
            weight = graph.producer[node.input[1]].input[0]
            assert graph.type_of(weight) == "INT8"
            quantized["Conv" if node.op_type == "Conv" else "dense"] += 1
        else:
            assert "DequantizeLinear" not in producers
            assert "QuantizeLinear" not in graph.consumers(node)
            floats += 1
    assert quantized == WEIGHTED | {"Conv": WEIGHTED["Conv"] - FLOAT_CONVS}
    assert floats == PRODUCTS + SMALL + FLOAT_CONVS
    for node in graph.of("Softmax", "Gelu", "LayerNormalization"):
        assert "DequantizeLinear" not in graph.producers(node)


def test_int8_dense_layers_have_float_outputs_and_convolutions_integer_ones(pure_int8):
    graph = Graph(pure_int8)
    for node in graph.of("Relu", "MaxPool"):
        if graph.consumers(node) == ["Relu"]:
            continue
        (consumer,) = [other for other in graph.nodes if node.output[0] in other.input]
        # The last feature map becomes tokens: it is transposed before.
        transposed = consumer.op_type == "Transpose"
        consumers = graph.consumers(consumer) if transposed else [consumer.op_type]
        assert consumers == ["QuantizeLinear"]
    dense = [n for n in graph.of(*DENSE) if graph.producers(n) == ["DequantizeLinear"] * 2]
    assert {kind for node in dense for kind in graph.consumers(node)} == {"Add"}


def test_int8_quantizes_a_convolution_or_the_pool_of_a_float_one_together_with_its_relu(exports):
    graph = Graph(exports("onnx", "int8").path)
    producers = [graph.producers(node) for node in graph.of("Relu")]
    assert producers == [["MaxPool"], ["Conv"]]
    for node in graph.of("Relu"):
        (quantize,) = [other for other in graph.nodes if node.output[0] in other.input]
        zero_point = graph.constants[quantize.input[2]]
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


def test_onnx_runtime_runs_its_integer_kernels_for_int8(exports):
    from cct_export.runtimes.onnxruntime_profile import kernels

    counts = kernels(exports("onnx", "int8").path)
    assert counts["QLinearConv"] == WEIGHTED["Conv"] - FLOAT_CONVS
    assert counts["MatMulIntegerToFloat"] == WEIGHTED["dense"]
    assert counts["NhwcMaxPool"] == WEIGHTED["Conv"] - FLOAT_CONVS


def test_onnx_runtime_runs_its_fused_kernels_for_int8_dynamic(exports):
    from cct_export.runtimes.onnxruntime_profile import kernels

    counts = kernels(exports("onnx", "int8-dynamic").path)
    assert counts["DynamicQuantizeMatMul"] == WEIGHTED["dense"]
    assert counts["MatMulIntegerToFloat"] == WEIGHTED["Conv"] - FLOAT_CONVS


def test_int8_dynamic_multiplies_integers_in_dense_layers_and_convolutions_of_many_channels(
    exports,
):
    graph = Graph(exports("onnx", "int8-dynamic").path)
    windows = WEIGHTED["Conv"] - FLOAT_CONVS
    assert graph.count["MatMulInteger"] == WEIGHTED["dense"] + windows
    assert graph.count["MatMul"] + graph.count["Gemm"] == PRODUCTS + SMALL
    kinds = Counter(graph.producers(node)[0] for node in graph.of("MatMulInteger"))
    assert kinds == {"DynamicQuantizeLinear": WEIGHTED["dense"], "Reshape": windows}
    for node in graph.of("MatMulInteger"):
        assert graph.producers(node)[1] == "constant"
        assert graph.type_of(node.input[1]) == "INT8"


def test_int8_dynamic_dequantizes_the_weights_of_the_first_convolution_at_load_time(
    exports,
):
    from cct_export.runtimes.onnxruntime_profile import kernels

    path = exports("onnx", "int8-dynamic").path
    graph = Graph(path)
    assert graph.count["Conv"] == FLOAT_CONVS
    for node in graph.of("Conv"):
        image, weights = graph.producers(node)
        assert weights == "Mul"
        assert "Quantize" not in image
        reals, scales = graph.producer[node.input[1]].input
        assert graph.type_of(graph.producer[reals].input[0]) == "INT8"
        kernel = graph.constants[graph.producer[reals].input[0]]
        assert list(graph.constants[scales].dims) == [kernel.dims[0], 1, 1, 1]
    # Folded at load time: none of it runs.
    assert not {"Cast", "DequantizeLinear", "Mul"} & set(kernels(path))


def test_fp16_stores_weights_as_float16_and_keeps_input_and_output_float32(exports):
    import onnx

    graph = Graph(exports("onnx", "fp16").path)
    casts = [graph.producer[node.input[1]] for node in graph.of("Conv", *DENSE)]
    # Products of two activations have no stored weight.
    stored = [node.input[0] for node in casts if node.op_type == "Cast"]
    assert len(stored) == sum(WEIGHTED.values()) + SMALL
    assert {graph.type_of(name) for name in stored} == {"FLOAT16"}
    for end in (*graph.graph.input, *graph.graph.output):
        assert end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_float_graphs_have_no_quantization_nodes(exports):
    graph = Graph(exports("onnx", "none").path)
    assert graph.count["Conv"] == WEIGHTED["Conv"]
    assert graph.count["MatMul"] + graph.count["Gemm"] == WEIGHTED["dense"] + SMALL + PRODUCTS
    assert not {name for name in graph.count if "Quantize" in name or "Integer" in name}


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic"])
def test_every_weight_is_stored_once_and_as_int8(exports, scheme):
    whole = Graph(exports("onnx", "none").path)
    sizes = sorted(
        _count(whole.constants[node.input[1]])
        for node in whole.of("Conv", *DENSE)
        if "constant" in whole.producers(node) and 1 not in whole.constants[node.input[1]].dims
    )
    graph = Graph(exports("onnx", scheme).path)
    types = {name: graph.type_of(name) for name in graph.constants}
    small = [
        _count(graph.constants[name])
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
