"""The tensors of quantized flatbuffers: stored types, and integer arithmetic."""

from collections import Counter

import pytest
from emitted import read_tflite

CONVOLUTIONS = 2
DENSE = 9  # per block query, output and 2 in the MLP; the logits
SMALL = 1  # the scores of the pooling
PRODUCTS = 5  # of two activations: scores and sums per block, and the pooled sum
NORMS = 5
EMBEDDINGS = 1
KINDS = ("CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "DEQUANTIZE", "MAX_POOL_2D")


def kernels(path):
    """Counts (operator, types of its first two inputs, type of its output)."""
    counts = Counter()
    for operator in read_tflite(path).operators:
        if operator.kind in KINDS:
            tensors = [*operator.inputs[:2], operator.output]
            counts[operator.kind, *(tensor.type for tensor in tensors)] += 1
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


def test_int8_computes_attention_in_integers_and_the_pooling_and_the_logits_not(exports):
    counts = kernels(exports("tflite", "int8").path)
    assert counts["BATCH_MATMUL", "INT8", "INT8", "INT8"] == PRODUCTS - 1
    assert counts["BATCH_MATMUL", "FLOAT32", "FLOAT32", "FLOAT32"] == 1
    assert counts["FULLY_CONNECTED", "INT8", "INT8", "INT8"] == DENSE - 1
    assert counts["FULLY_CONNECTED", "FLOAT32", "INT8", "FLOAT32"] == 1


def test_only_dense_layers_have_int4_weights(exports):
    counts = kernels(exports("tflite", "int4-weight").path)
    assert counts["FULLY_CONNECTED", "FLOAT32", "INT4", "FLOAT32"] == DENSE
    assert counts["CONV_2D", "INT8", "INT8", "INT8"] == CONVOLUTIONS


@pytest.mark.parametrize(
    ("scheme", "io", "inner"),
    [
        ("int8-full", "int8", {"INT8"}),
        ("int8-full", "uint8", {"INT8"}),
        ("int16x8", "float32", {"INT8", "INT16"}),
    ],
)
def test_integer_only_schemes_have_no_float_between_input_and_output(exports, scheme, io, inner):
    graph = read_tflite(exports("tflite", scheme, io).path)
    assert graph.image.type == graph.logits.type == io.upper()
    tensors = [tensor for tensor in graph.tensors if tensor not in (graph.image, graph.logits)]
    # INT32 and INT64 are biases and shapes.
    assert {tensor.type for tensor in tensors} - {"INT32", "INT64"} == inner


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
    for tensor in read_tflite(exports("tflite", "int8").path).tensors:
        if tensor.type == "INT8":
            channels = tensor.shape[0] if tensor.name.endswith("/kernel") else 1
            assert len(tensor.scales) == channels, tensor.name
            assert min(tensor.scales) > 0
