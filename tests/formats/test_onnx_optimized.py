"""What ONNX Runtime makes of the graphs of quantized files."""

from collections import Counter

import onnx
import onnxruntime
import pytest


def optimized(path, folder):
    """Returns the graph that ONNX Runtime runs for a file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx").graph


def dequantized_weights(graph):
    stored = {tensor.name for tensor in graph.initializer}
    decoders = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    return [node.name for node in decoders if node.input[0] in stored]


@pytest.mark.parametrize("options", [(), ("--target", "arm64")])
def test_a_file_for_one_image_runs_the_same_operators_as_one_for_any_number(
    tmp_path, in_process, digits_model, options
):
    graphs = []
    for axes in ("--dynamic-axes", "--no-dynamic-axes"):
        path = tmp_path / f"m{axes}.onnx"
        arguments = ("--quantize", "int8", axes, *options, "--samples", 32, "-o", path)
        ended = in_process("export", "onnx", digits_model, *arguments)
        assert ended.code == 0, ended.err
        graphs.append(optimized(path, tmp_path))
    dynamic, static = (Counter(node.op_type for node in graph.node) for graph in graphs)
    assert static == dynamic
    assert static["MatMulIntegerToFloat"] >= 8


@pytest.mark.parametrize("scheme", ["fp16", "int8-dynamic", "int8", "int4-weight"])
def test_no_weights_are_dequantized_at_every_inference(tmp_path, in_process, digits_model, scheme):
    path = tmp_path / "m.onnx"
    arguments = ("--quantize", scheme, "--no-dynamic-axes", "--samples", 32, "-o", path)
    ended = in_process("export", "onnx", digits_model, *arguments)
    assert ended.code == 0, ended.err
    assert dequantized_weights(optimized(path, tmp_path)) == []
