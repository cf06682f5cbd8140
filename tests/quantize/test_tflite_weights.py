"""Quantized flatbuffers really hold small weights and do integer arithmetic."""

from collections import Counter

import pytest

CONVOLUTIONS = 2
DENSE = 10  # per block query, output and 2 in the MLP; pooling and the logits
PRODUCTS = 5  # of two activations: 2 per block, and the pooled sum


def kernels(path):
    """Counts (operator, type of its input, of its weights, of its output), weights constant."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    operators = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    types = {v: k for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
    model = flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    found = Counter()
    for operator in graph.operators:
        name = operators[model.operatorCodes[operator.opcodeIndex].builtinCode]
        if name not in ("CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "DEQUANTIZE", "QUANTIZE"):
            continue
        tensors = [*operator.inputs[:2], operator.outputs[0]]
        found[name, *(types[graph.tensors[int(i)].type] for i in tensors)] += 1
    return found


def test_float_files_are_float_throughout(exports):
    assert kernels(exports("tflite", "none").path) == {
        ("CONV_2D", "FLOAT32", "FLOAT32", "FLOAT32"): CONVOLUTIONS,
        ("FULLY_CONNECTED", "FLOAT32", "FLOAT32", "FLOAT32"): DENSE,
        ("BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"): PRODUCTS,
    }


def test_fp16_stores_every_weight_in_half_the_bytes(exports):
    found = kernels(exports("tflite", "fp16").path)
    assert found["DEQUANTIZE", "FLOAT16", "FLOAT32"] == CONVOLUTIONS + DENSE


def test_int8_dynamic_has_int8_weights_and_float_activations(exports):
    assert kernels(exports("tflite", "int8-dynamic").path) == {
        ("CONV_2D", "FLOAT32", "INT8", "FLOAT32"): CONVOLUTIONS,
        ("FULLY_CONNECTED", "FLOAT32", "INT8", "FLOAT32"): DENSE,
        ("BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"): PRODUCTS,
    }


def test_int8_convolves_in_integers_and_has_int8_dense_weights(exports):
    found = kernels(exports("tflite", "int8").path)
    assert found["CONV_2D", "INT8", "INT8", "INT8"] == CONVOLUTIONS
    assert found["FULLY_CONNECTED", "FLOAT32", "INT8", "FLOAT32"] == DENSE
    assert found["BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"] == PRODUCTS
    assert not [key for key in found if key[0] == "CONV_2D" and "FLOAT32" in key]


@pytest.mark.parametrize(
    ("scheme", "share"), [("fp16", 0.7), ("int8-dynamic", 0.55), ("int8", 0.55)]
)
def test_quantized_files_are_smaller(exports, scheme, share):
    whole = exports("tflite", "none").path.stat().st_size
    assert exports("tflite", scheme).path.stat().st_size < share * whole


def test_calibrated_ranges_hold_what_the_images_reach(exports):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exports("tflite", "int8").path))
    quantized = [
        entry
        for entry in interpreter.get_tensor_details()
        if entry["dtype"].__name__ == "int8" and len(entry["quantization_parameters"]["scales"]) > 1
    ]
    # Weights of convolutions and dense layers have a scale per channel.
    assert len(quantized) >= CONVOLUTIONS + DENSE - 1
