"""Inspection of ONNX files: cost against hand counts, quantization, nodes that run."""

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cct_export
from cct_export.errors import InvalidArtifact
from cct_export.graph.fold import fold
from cct_export.graph.lower import lower


def write(path, nodes, image, logits, constants=(), opset=18, **more):
    """Writes a graph from float32 ``x`` to float32 ``y``; ``constants`` are arrays by name."""
    graph = helper.make_graph(
        nodes,
        "stock",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, logits)],
        [numpy_helper.from_array(array, name) for name, array in dict(constants).items()],
    )
    opsets = [helper.make_opsetid("", opset), *more.pop("domains", ())]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, **more), path)
    return path


def weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def integers(*shape):
    return np.random.default_rng(sum(shape)).integers(-127, 127, shape).astype(np.int8)


def by_kind(report):
    return {operator.kind: operator for operator in report.operators}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A graph with an open batch and nodes without names."""
    return write(
        tmp_path_factory.mktemp("stock") / "stock.onnx",
        [
            helper.make_node("Conv", ["x", "kernel", "bias"], ["a"], strides=[2, 2], group=2),
            helper.make_node("ConvTranspose", ["a", "wide"], ["b"], strides=[2, 2]),
            helper.make_node("Flatten", ["b"], ["c"]),
            helper.make_node("Gemm", ["c", "dense", "shift"], ["d"], transB=1),
            helper.make_node("Reshape", ["d", "sizes"], ["e"]),
            helper.make_node("MatMul", ["e", "e"], ["y"]),
        ],
        ["batch", 4, 9, 9],
        ["batch", 5, 5],
        {
            "kernel": weights(8, 2, 3, 3),
            "bias": weights(8),
            "wide": weights(8, 3, 2, 2),
            "dense": weights(25, 3 * 8 * 8),
            "shift": weights(25),
            "sizes": np.array([-1, 5, 5], np.int64),
        },
    )


def test_macs_are_counted_for_one_image_where_the_batch_is_open(stock):
    report = cct_export.inspect(stock)
    operators = by_kind(report)
    assert operators["Conv"].shape == (1, 8, 4, 4)
    assert operators["Conv"].macs == 8 * 4 * 4 * (2 * 3 * 3)
    assert operators["Conv"].parameters == 8 * 2 * 3 * 3 + 8
    assert operators["ConvTranspose"].shape == (1, 3, 8, 8)
    assert operators["ConvTranspose"].macs == 8 * 4 * 4 * (3 * 2 * 2)
    assert operators["Gemm"].macs == 25 * 192
    assert operators["Gemm"].parameters == 25 * 192 + 25
    assert operators["MatMul"].macs == 5 * 5 * 5
    assert operators["MatMul"].parameters == operators["Reshape"].parameters == 0
    assert report.macs == 2304 + 1536 + 4800 + 125
    assert report.parameters == 152 + 96 + 4825
    assert (report.tensors, len(report.operators)) == (1 + 6 + 6, 6)


def test_an_open_batch_is_shown_as_open(stock):
    report = cct_export.inspect(stock)
    assert (report.format, report.scheme) == ("onnx", None)
    (image,), (product,) = report.inputs, report.outputs
    assert (image.name, image.dtype, image.shape) == ("x", "float32", (None, 4, 9, 9))
    assert (product.name, product.dtype, product.shape) == ("y", "float32", (None, 5, 5))


def test_nodes_without_names_are_identified_in_the_optimized_graph(stock):
    report = cct_export.inspect(stock)
    assert [operator.partition for operator in report.operators] == [0] * 6
    assert (report.nodes, report.delegated, report.partitions) == (6, 6, 1)


def test_an_operator_that_the_engine_removes_is_in_no_partition(tmp_path):
    path = write(
        tmp_path / "folded.onnx",
        [
            helper.make_node("Identity", ["x"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["y"]),
        ],
        [1, 3],
        [1, 4],
        {"w": weights(3, 4)},
    )
    report = cct_export.inspect(path)
    assert [operator.partition for operator in report.operators] == [None, 0]
    assert (report.nodes, len(report.operators)) == (1, 2)


@pytest.mark.parametrize("scheme", ["none", "fp16", "int8-dynamic", "int8"])
def test_every_scheme_has_the_parameters_and_macs_of_the_model(exports, digits_model, scheme):
    report = cct_export.inspect(exports("onnx", scheme).path)
    plan = fold(lower(keras.saving.load_model(digits_model)))
    # LayerNormalization needs a gamma even where it is folded: ones, stored once.
    ones = plan.shapes["norm"][-1]
    assert report.parameters == plan.parameters + ones
    assert report.macs == plan.total_macs > 0
    assert report.scheme == scheme
    assert report.warnings == ()
    products = {"int8-dynamic": "MatMulInteger", "int8": "com.microsoft.MatMulIntegerToFloat"}
    product = products.get(scheme, "MatMul")
    dtype = {"none": "float32", "fp16": "float16"}.get(scheme, "int8")
    assert dtype in {
        operator.weight_dtype for operator in report.operators if operator.kind == product
    }


def test_the_nodes_are_those_that_a_session_counts(exports):
    from cct_export.runtimes import onnxruntime

    path = exports("onnx", "int8").path
    report, session = cct_export.inspect(path), onnxruntime.open_session(path)
    assert (report.delegated, report.nodes) == (session.delegated_nodes, session.total_nodes)


def test_the_weights_of_an_int8_export_are_quantized_per_channel(exports):
    path = exports("onnx", "int8").path
    tensors = {tensor.name: tensor for tensor in cct_export.inspect(path).quantized}
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    slots = {"DequantizeLinear": [(0, 1, 2)], "MatMulIntegerToFloat": [(0, 2, 4), (1, 3, 5)]}
    found = set()
    for node in graph.node:
        inputs = [*node.input, "", ""]
        for values, scale, zero_point in slots.get(node.op_type, ()):
            tensor = tensors[inputs[values]]
            found.add(tensor.name)
            assert tensor.scales == pytest.approx(stored[inputs[scale]].reshape(-1))
            zeros = stored[inputs[zero_point]].reshape(-1) if inputs[zero_point] else ()
            assert tensor.zero_points == tuple(zeros)
    assert found == set(tensors)
    kernels = [tensor for name, tensor in tensors.items() if name in stored]
    assert {(k.dtype, k.granularity) for k in kernels if len(k.shape) > 1 and k.shape[1] > 1} == {
        ("int8", "channel")
    }
    assert all(k.shape[k.axis] == len(k.scales) for k in kernels if k.axis is not None)
    activations = [tensor for name, tensor in tensors.items() if name not in stored]
    assert activations
    assert {tensor.granularity for tensor in activations} == {"tensor"}


def test_integer_products_have_the_scale_of_the_mul_after_them(exports):
    path = exports("onnx", "int8-dynamic").path
    tensors = {tensor.name: tensor for tensor in cct_export.inspect(path).quantized}
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [node.input[1] for node in graph.node if node.op_type == "MatMulInteger"]
    assert products
    for name in products:
        scales = stored[f"{name}_scale"].reshape(-1)
        assert tensors[name].scales == pytest.approx(scales), name


def test_integer_operators_have_macs_and_their_scales_are_no_parameters(tmp_path):
    path = write(
        tmp_path / "integer.onnx",
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("ConvInteger", ["q", "kernel", "z", "kz"], ["a"]),
            helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["s", "ks"], ["both"]),
            helper.make_node("Mul", ["b", "both"], ["y"]),
        ],
        ["n", 3, 6, 6],
        ["n", 4, 4, 4],
        {
            "kernel": integers(4, 3, 3, 3),
            "kz": np.array(2, np.int8),
            "ks": np.array([0.5], np.float32),
        },
    )
    report = cct_export.inspect(path)
    assert by_kind(report)["ConvInteger"].macs == 4 * 4 * 4 * 27
    assert report.parameters == by_kind(report)["ConvInteger"].parameters == 4 * 27
    (kernel,) = report.quantized
    assert (kernel.name, kernel.dtype, kernel.shape) == ("kernel", "int8", (4, 3, 3, 3))
    assert (kernel.scales, kernel.zero_points, kernel.granularity) == ((0.5,), (2,), "tensor")


def test_qlinear_operators_quantize_their_inputs_weights_and_outputs(tmp_path):
    scale, zero = (lambda value: np.array(value, np.float32)), np.array(3, np.uint8)
    per_channel = np.array([0.5, 0.25, 0.125], np.float32)
    path = write(
        tmp_path / "qlinear.onnx",
        [
            helper.make_node("QuantizeLinear", ["x", "xs", "zero"], ["a"]),
            helper.make_node(
                "QLinearConv",
                ["a", "xs", "zero", "kernel", "ks", "kz", "ms", "zero", "bias"],
                ["b"],
            ),
            helper.make_node(
                "QLinearMatMul",
                ["b", "ms", "zero", "square", "xs", "zero", "ys", "zero"],
                ["c"],
            ),
            helper.make_node("DequantizeLinear", ["c", "ys", "zero"], ["y"]),
        ],
        [1, 2, 5, 5],
        [1, 3, 3, 4],
        {
            "xs": scale(0.1),
            "ms": scale(0.2),
            "ys": scale(0.3),
            "ks": per_channel,
            "kz": np.zeros(3, np.int8),
            "zero": zero,
            "kernel": integers(3, 2, 3, 3),
            "bias": np.arange(3, dtype=np.int32),
            "square": integers(3, 4).view(np.uint8),
        },
    )
    report = cct_export.inspect(path)
    assert by_kind(report)["QLinearConv"].macs == 3 * 3 * 3 * 18
    assert by_kind(report)["QLinearConv"].parameters == 3 * 18 + 3
    assert by_kind(report)["QLinearMatMul"].macs == 3 * 3 * 4 * 3
    assert report.parameters == 57 + 12
    tensors = {tensor.name: tensor for tensor in report.quantized}
    assert set(tensors) == {"a", "b", "c", "kernel", "square"}
    assert (tensors["kernel"].scales, tensors["kernel"].axis) == (tuple(per_channel), 0)
    assert tensors["b"].scales == pytest.approx([0.2])
    assert (tensors["b"].dtype, tensors["b"].zero_points) == ("uint8", (3,))


def test_the_shapes_of_onnx_runtimes_own_operators_are_those_that_it_infers(tmp_path):
    path = write(
        tmp_path / "fused.onnx",
        [
            helper.make_node(
                "FusedMatMul", ["x", "w"], ["a"], domain="com.microsoft", transA=1, transB=1
            ),
            helper.make_node(
                "DynamicQuantizeMatMul", ["a", "q", "s"], ["y"], domain="com.microsoft"
            ),
        ],
        [7, 3],
        [3, 6],
        {"w": weights(5, 7), "q": integers(5, 6), "s": np.array(0.5, np.float32)},
        domains=[helper.make_opsetid("com.microsoft", 1)],
    )
    report = cct_export.inspect(path)
    operators = by_kind(report)
    assert operators["com.microsoft.FusedMatMul"].shape == (3, 5)
    assert operators["com.microsoft.FusedMatMul"].macs == 3 * 5 * 7
    assert operators["com.microsoft.DynamicQuantizeMatMul"].macs == 3 * 6 * 5
    assert report.parameters == 5 * 7 + 5 * 6
    assert [tensor.name for tensor in report.quantized] == ["q"]


def test_functions_are_inlined_and_branches_are_counted(tmp_path):
    double = helper.make_function(
        "mine", "Dense", ["a", "b"], ["c"], [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip

    def branch(name, node):
        out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out])

    path = write(
        tmp_path / "function.onnx",
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights(4, 6))),
            helper.make_node("Dense", ["x", "w"], ["a"], domain="mine"),
            helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["yes"], to=TensorProto.BOOL),
            helper.make_node(
                "If",
                ["yes"],
                ["y"],
                then_branch=branch("then", helper.make_node("MatMul", ["a", "v"], ["then"])),
                else_branch=branch("else", helper.make_node("Relu", ["a"], ["else"])),
            ),
        ],
        [1, 4],
        [1, 6],
        {"v": weights(6, 6)},
        functions=[double],
        domains=[helper.make_opsetid("mine", 1)],
    )
    report = cct_export.inspect(path)
    kinds = [operator.kind for operator in report.operators]
    assert sorted(kinds) == ["Cast", "If", "MatMul", "MatMul", "ReduceSum", "Relu"]
    assert report.macs == 4 * 6 + 6 * 6
    assert report.parameters == 4 * 6 + 6 * 6


def test_an_unknown_shape_is_a_warning_and_not_zero_macs(tmp_path):
    path = write(
        tmp_path / "open.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Flatten", ["a"], ["b"]),
            helper.make_node("MatMul", ["a", "v"], ["y"]),
        ],
        ["n", "length", 4],
        ["n", "length", 2],
        {"w": weights(4, 3), "v": weights(3, 2)},
    )
    report = cct_export.inspect(path)
    assert [operator.macs for operator in report.operators] == [None, 0, None]
    assert report.operators[0].shape == (1, None, 3)
    assert report.macs == 0
    assert report.warnings == ("the shapes of 2 operators are unknown: their MACs are not counted",)


def test_a_file_with_a_custom_operator_is_inspected_without_partitions(tmp_path):
    path = write(
        tmp_path / "custom.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Conv", ["a"], ["y"], domain="theirs"),
        ],
        [1, 4],
        [1, 3],
        {"w": weights(4, 3)},
        domains=[helper.make_opsetid("theirs", 1)],
    )
    report = cct_export.inspect(path)
    assert [(operator.kind, operator.macs) for operator in report.operators] == [
        ("MatMul", 12),
        ("theirs.Conv", 0),
    ]
    assert report.nodes is report.delegated is report.partitions is None
    assert "theirs" in report.warnings[0]


def test_constants_may_be_nodes_of_every_kind_and_weights_may_be_in_another_file(tmp_path):
    path = tmp_path / "wide.onnx"
    write(
        path,
        [
            helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
            helper.make_node("Constant", [], ["half"], value_float=0.5),
            helper.make_node("Constant", [], ["s"], value_ints=[1, 3]),
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Mul", ["c", "half"], ["d"]),
            helper.make_node("Reshape", ["d", "s"], ["y"]),
        ],
        [1, 400],
        [1, 3],
        {"w": weights(400, 3)},
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="wide.bin")
    assert (tmp_path / "wide.bin").stat().st_size >= 4800
    report = cct_export.inspect(path)
    assert [operator.parameters for operator in report.operators] == [1200, 3, 0, 0]
    # ONNX Runtime fuses the product and the sum into one Gemm.
    assert [operator.partition for operator in report.operators] == [None, None, 0, 0]
    assert report.nodes == 3
    (tmp_path / "wide.bin").unlink()
    with pytest.raises(InvalidArtifact, match=r"wide\.bin"):
        cct_export.inspect(path)


def test_a_file_that_neither_onnx_nor_its_runtime_accepts_is_refused(tmp_path):
    nodes = [helper.make_node("MatMul", ["x"], ["y"])]
    path = write(tmp_path / "half.onnx", nodes, [1, 4], [1, 3])
    with pytest.raises(InvalidArtifact, match="ONNX Runtime cannot open"):
        cct_export.inspect(path)
