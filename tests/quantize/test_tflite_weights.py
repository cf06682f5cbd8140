"""The tensors of quantized flatbuffers: stored types, and integer arithmetic."""

from collections import Counter

import numpy as np
import pytest

CONVOLUTIONS = 2
DENSE = 9  # per block query, output and 2 in the MLP; the logits
SMALL = 1  # the scores of the pooling
PRODUCTS = 5  # of two activations: scores and sums per block, and the pooled sum
SCORES = 2
NORMS = 5
EMBEDDINGS = 1


def graph_of(path):
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def names(kind):
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(getattr(schema, kind)).items() if not k.startswith("_")}


def kernels(path):
    """Counts (operator, type of its first input, of its second, of its output)."""
    operators, types = names("BuiltinOperator"), names("TensorType")
    model = graph_of(path)
    (graph,) = model.subgraphs
    counts = Counter()
    for operator in graph.operators:
        name = operators[model.operatorCodes[operator.opcodeIndex].builtinCode]
        if name not in ("CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "DEQUANTIZE", "MAX_POOL_2D"):
            continue
        tensors = [*operator.inputs[:2], operator.outputs[0]]
        counts[name, *(types[graph.tensors[int(i)].type] for i in tensors)] += 1
    return counts


def test_float_files_are_float_throughout(exports):
    counts = kernels(exports("tflite", "none").path)
    assert counts["CONV_2D", "FLOAT32", "FLOAT32", "FLOAT32"] == CONVOLUTIONS
    assert counts["FULLY_CONNECTED", "FLOAT32", "FLOAT32", "FLOAT32"] == DENSE + SMALL
    assert counts["BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"] == PRODUCTS
    assert {type for key in counts for type in key[1:]} == {"FLOAT32"}


def test_fp16_stores_every_weight_as_float16(exports):
    counts = kernels(exports("tflite", "fp16").path)
    assert counts["DEQUANTIZE", "FLOAT16", "FLOAT32"] == CONVOLUTIONS + DENSE + SMALL + EMBEDDINGS


def test_int8_dynamic_has_int8_weights_and_float_activations(exports):
    counts = kernels(exports("tflite", "int8-dynamic").path)
    assert counts["CONV_2D", "FLOAT32", "INT8", "FLOAT32"] == CONVOLUTIONS
    assert counts["FULLY_CONNECTED", "FLOAT32", "INT8", "FLOAT32"] == DENSE
    assert counts["FULLY_CONNECTED", "FLOAT32", "FLOAT32", "FLOAT32"] == SMALL
    assert counts["BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"] == PRODUCTS


def test_int8_stays_in_integers_from_the_image_to_the_last_pool(exports):
    counts = kernels(exports("tflite", "int8").path)
    assert counts["CONV_2D", "INT8", "INT8", "INT8"] == CONVOLUTIONS
    pools = [key for key in counts if key[0] == "MAX_POOL_2D"]
    assert {key[1] for key in pools} == {"INT8"}
    assert not [key for key in counts if key[0] == "CONV_2D" and "FLOAT32" in key]


def test_int8_computes_attention_scores_in_integers_and_weighted_sums_in_float(exports):
    counts = kernels(exports("tflite", "int8").path)
    assert counts["BATCH_MATMUL", "INT8", "INT8", "INT8"] == SCORES
    assert counts["BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"] == PRODUCTS - SCORES
    assert counts["FULLY_CONNECTED", "FLOAT32", "INT8", "FLOAT32"] == DENSE


def test_only_dense_layers_have_int4_weights(exports):
    counts = kernels(exports("tflite", "int4-weight").path)
    assert counts["FULLY_CONNECTED", "FLOAT32", "INT4", "FLOAT32"] == DENSE
    assert counts["CONV_2D", "FLOAT32", "INT8", "FLOAT32"] == CONVOLUTIONS


@pytest.mark.parametrize(
    ("scheme", "io", "activations", "ends"),
    [
        ("int8-full", "int8", {"INT8"}, ["INT8", "INT8"]),
        ("int8-full", "uint8", {"INT8", "UINT8"}, ["UINT8", "UINT8"]),
        ("int16x8", "float32", {"INT16", "FLOAT32"}, ["FLOAT32", "FLOAT32"]),
    ],
)
def test_integer_only_schemes_have_no_float_between_input_and_output(
    exports, scheme, io, activations, ends
):
    types = names("TensorType")
    (graph,) = graph_of(exports("tflite", scheme, io).path).subgraphs
    image, logits = int(graph.inputs[0]), int(graph.outputs[0])
    assert [types[graph.tensors[i].type] for i in (image, logits)] == ends
    inner = {types[t.type] for i, t in enumerate(graph.tensors) if i not in (image, logits)}
    # INT32 and INT64 are biases and shapes; int16x8 has int8 weights.
    assert inner - {"INT32", "INT64", "INT8"} == activations - set(ends) - {"INT8"}


def test_int8_full_sums_squares_before_rounding(exports):
    # A row times itself: the products of int8 accumulate in 32 bits.
    counts = kernels(exports("tflite", "int8-full", "int8").path)
    assert counts["BATCH_MATMUL", "INT8", "INT8", "INT8"] == PRODUCTS + NORMS


@pytest.mark.parametrize(
    ("scheme", "share"),
    [("fp16", 0.7), ("int8-dynamic", 0.55), ("int8", 0.55), ("int16x8", 0.6), ("int4-weight", 0.5)],
)
def test_quantized_files_are_smaller(exports, scheme, share):
    whole = exports("tflite", "none").path.stat().st_size
    assert exports("tflite", scheme).path.stat().st_size < share * whole


def test_weights_have_a_scale_per_channel_and_activations_one(exports):
    (graph,) = graph_of(exports("tflite", "int8").path).subgraphs
    types = names("TensorType")
    for tensor in graph.tensors:
        if types[tensor.type] != "INT8":
            continue
        scales = tensor.quantization.scale
        constant = tensor.name.decode().endswith("/kernel")
        assert len(scales) == (tensor.shape[0] if constant else 1), tensor.name
        assert np.all(np.asarray(scales) > 0)
