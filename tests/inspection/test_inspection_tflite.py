"""Inspection of TFLite files: cost against hand counts, quantization, partitions."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import cct_export
from cct_export.errors import InvalidArtifact
from cct_export.graph import steps
from cct_export.graph.fold import fold
from cct_export.graph.lower import lower
from cct_export.model import cct  # noqa: F401 (registers the classes that Keras loads)


def write(path, function, shape, **settings):
    """Writes a file of TensorFlow's own converter, with one float32 input."""
    traced = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    for name, value in settings.items():
        setattr(converter, name, value)
    path.write_bytes(converter.convert())
    return path


def weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def edited(source, path, change):
    """Writes a changed copy of ``source`` to ``path``."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(source))
    change(model)
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return path


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A stock file with an operator in the middle that XNNPACK does not support."""

    def net(x):
        x = tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 3, 8), 2, "SAME") + weights(8))
        x = tf.nn.depthwise_conv2d(x, weights(3, 3, 8, 2), [1, 1, 1, 1], "VALID")
        x = tf.nn.conv2d_transpose(x, weights(2, 2, 4, 16), (1, 12, 12, 4), 2, "VALID")
        x = tf.reshape(tf.cumsum(x, 1), (1, 144, 4))
        return tf.matmul(x, x, transpose_a=True)

    return write(tmp_path_factory.mktemp("stock") / "stock.tflite", net, (1, 16, 16, 3))


@pytest.fixture(scope="module")
def full_int8(tmp_path_factory):
    """A dense layer that TensorFlow's converter quantized with integer input and output."""
    images = [np.linspace(-1, 3, 8, dtype=np.float32)[np.newaxis]]
    return write(
        tmp_path_factory.mktemp("int8") / "dense.tflite",
        lambda x: tf.matmul(x, weights(8, 5)) + weights(5),
        (1, 8),
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([image] for image in images),
        target_spec=tf.lite.TargetSpec(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8]),
        inference_input_type=tf.int8,
        inference_output_type=tf.int8,
    )


def by_kind(report):
    return {operator.kind: operator for operator in report.operators}


def all_of(kind, report):
    return [operator for operator in report.operators if operator.kind == kind]


def test_the_macs_of_a_convolution_are_its_kernel_times_its_output(stock):
    operators = by_kind(cct_export.inspect(stock))
    assert operators["CONV_2D"].shape == (1, 8, 8, 8)
    assert operators["CONV_2D"].macs == 8 * 8 * 8 * (3 * 3 * 3)
    assert operators["CONV_2D"].parameters == 3 * 3 * 3 * 8 + 8
    assert operators["DEPTHWISE_CONV_2D"].shape == (1, 6, 6, 16)
    assert operators["DEPTHWISE_CONV_2D"].macs == 6 * 6 * 16 * (3 * 3)
    # The converter adds a bias of zeros.
    assert operators["DEPTHWISE_CONV_2D"].parameters == 3 * 3 * 16 + 16
    assert operators["TRANSPOSE_CONV"].shape == (1, 12, 12, 4)
    assert operators["TRANSPOSE_CONV"].macs == 6 * 6 * 16 * (2 * 2 * 4)
    assert operators["TRANSPOSE_CONV"].parameters == 2 * 2 * 4 * 16
    dtypes = {operator.weight_dtype for operator in operators.values() if operator.parameters}
    assert dtypes == {"float32"}


def test_a_product_of_two_activations_has_macs_and_no_parameters(stock):
    report = cct_export.inspect(stock)
    product = by_kind(report)["BATCH_MATMUL"]
    assert (product.shape, product.macs, product.parameters) == ((1, 4, 4), 4 * 4 * 144, 0)
    assert product.weight_dtype is None
    assert report.macs == 13824 + 5184 + 9216 + 2304
    assert report.parameters == 224 + 160 + 256


def test_shapes_and_axes_are_no_parameters_and_other_operators_have_no_macs(stock):
    operators = by_kind(cct_export.inspect(stock))
    assert (operators["RESHAPE"].parameters, operators["RESHAPE"].macs) == (0, 0)
    assert (operators["CUMSUM"].parameters, operators["CUMSUM"].macs) == (0, 0)


def test_an_operator_that_the_delegate_does_not_support_separates_two_partitions(stock):
    report = cct_export.inspect(stock)
    partitions = [operator.partition for operator in report.operators]
    gap = [operator.kind for operator in report.operators].index("CUMSUM")
    assert partitions == [0] * gap + [None] + [1] * (len(partitions) - gap - 1)
    assert (report.partitions, report.nodes) == (2, len(partitions))
    assert report.delegated == len(partitions) - 1
    assert {kind.name: kind.delegated for kind in report.kinds()}["CUMSUM"] == 0


def test_the_delegated_operators_are_those_that_a_session_counts(exports):
    from cct_export.runtimes import litert

    path = exports("tflite", "int8").path
    report, session = cct_export.inspect(path), litert.open_session(path, trusted=True)
    assert (report.delegated, report.nodes) == (session.delegated_nodes, session.total_nodes)
    assert report.partitions == 1
    assert {operator.partition for operator in report.operators} == {0}


def test_a_stock_file_has_no_scheme_and_the_names_of_its_signature(stock):
    report = cct_export.inspect(stock)
    assert report.scheme is None
    assert report.format == "tflite"
    assert report.size_bytes == stock.stat().st_size
    (image,), (product,) = report.inputs, report.outputs
    assert (image.name, image.dtype, image.shape) == ("x", "float32", (1, 16, 16, 3))
    assert product.shape == (1, 4, 4)
    assert report.quantized == report.warnings == ()


def test_an_open_batch_counts_as_one_image(tmp_path):
    path = write(
        tmp_path / "open.tflite",
        lambda x: tf.nn.conv2d(x, weights(3, 3, 3, 8), 1, "SAME"),
        (None, 16, 16, 3),
    )
    report = cct_export.inspect(path)
    assert report.inputs[0].shape == (None, 16, 16, 3)
    assert report.operators[0].shape == (1, 16, 16, 8)
    assert report.macs == 16 * 16 * 8 * 27


@pytest.mark.parametrize("scheme", ["none", "fp16", "int8-dynamic", "int8"])
def test_every_scheme_has_the_parameters_and_macs_of_the_model(exports, digits_model, scheme):
    plan = fold(lower(keras.saving.load_model(digits_model)))
    report = cct_export.inspect(exports("tflite", scheme).path)
    convolutions = all_of("CONV_2D", report)
    # The tokenizer has no biases; TFLite's convolutions need zeros. Equal constants are there once,
    # and integers of another scale are not equal.
    biases = [operator.shape[-1] for operator in convolutions]
    zeros = sum(biases if scheme == "int8" else set(biases))
    shared = sum(biases) - zeros
    first = next(step for step in plan.steps if isinstance(step, steps.Conv))
    more_macs = 0
    if "int8" in scheme:  # the kernel over pairs of pixels has zeros, too
        height, width, inside, outside = first.kernel.shape
        paired = height * (width + 1) * inside * 2 * outside
        zeros += paired - first.kernel.size
        more_macs = math.prod(convolutions[0].shape[1:3]) * paired - plan.macs(first)
    assert report.parameters == plan.parameters + zeros
    assert sum(kind.parameters for kind in report.kinds()) == report.parameters + shared
    assert report.macs == plan.total_macs + more_macs
    dtype = {"none": "float32", "fp16": "float16"}.get(scheme, "int8")
    dense = [operator.weight_dtype for operator in all_of("FULLY_CONNECTED", report)]
    # Quantizing the small layer of the pooling would gain nothing.
    assert set(dense) == ({dtype} if "int8" not in scheme else {dtype, "float32"})
    assert report.scheme == scheme
    assert (report.inputs[0].name, report.outputs[0].name) == ("image", "logits")


def test_the_macs_of_convolutions_are_those_of_the_keras_layers(exports, digits_model):
    keras_model = keras.saving.load_model(digits_model)
    report = cct_export.inspect(exports("tflite").path)
    convolutions = all_of("CONV_2D", report)
    kernels = [w.shape for w in keras_model.weights if len(w.shape) == 4]
    assert [operator.macs for operator in convolutions] == [
        math.prod(operator.shape) * math.prod(kernel[:3])
        for operator, kernel in zip(convolutions, kernels, strict=True)
    ]


def test_a_fully_quantized_file_has_all_scales(full_int8):
    report = cct_export.inspect(full_int8)
    (image,), (logits,) = report.inputs, report.outputs
    # A range of (-1, 3) in 255 steps: the zero point is -128 + 255 / 4.
    assert (image.dtype, image.granularity) == ("int8", "tensor")
    assert image.scales == pytest.approx([4 / 255])
    assert image.zero_points == (-64,)
    assert logits.dtype == "int8"
    (dense,) = all_of("FULLY_CONNECTED", report)
    assert (dense.macs, dense.parameters, dense.weight_dtype) == (8 * 5, 8 * 5 + 5, "int8")
    by_type = {tensor.dtype: tensor for tensor in report.quantized if tensor.shape == (5,)}
    assert set(by_type) == {"int32"}
    (kernel,) = [tensor for tensor in report.quantized if tensor.shape == (5, 8)]
    assert (kernel.granularity, kernel.axis) == ("channel", 0)
    assert kernel.scales == pytest.approx(np.abs(weights(8, 5)).max(axis=0) / 127, rel=1e-5)
    assert set(kernel.zero_points) == {0}


def test_the_kernels_of_an_int8_export_are_quantized_per_channel(exports, digits_model):
    report = cct_export.inspect(exports("tflite", "int8", "uint8").path)
    (image,) = report.inputs
    assert (image.dtype, image.scales, image.zero_points) == ("uint8", (1.0,), (0,))
    kernels = [tensor for tensor in report.quantized if len(tensor.shape) == 4 and tensor.axis == 0]
    trained = [w for w in keras.saving.load_model(digits_model).weights if len(w.shape) == 4]
    # The rescaling of pixels is folded into the first kernel.
    # It is one over pairs of pixels, for both pixels of a pair.
    for weight, rescaling, pixels in zip(trained, (255, 1), (2, 1), strict=True):
        height, width, inside, outside = weight.shape
        pairs = -(-width // pixels)
        shape = (pixels * outside, height, pairs, pixels * inside)
        (kernel,) = [k for k in kernels if k.shape == shape]
        assert (kernel.dtype, kernel.granularity) == ("int8", "channel")
        largest = np.tile(np.abs(np.asarray(weight)).max(axis=(0, 1, 2)), pixels)
        assert kernel.scales == pytest.approx(largest / 127 / rescaling, rel=1e-3)
    biases = [tensor.name for tensor in report.quantized if tensor.dtype == "int32"]
    assert len([name for name in biases if "conv" in name]) == len(trained)


def test_a_weight_that_two_operators_read_counts_once_in_the_total(tmp_path):
    def twice(x):
        shared = tf.constant(weights(6, 6))
        return tf.matmul(tf.nn.tanh(tf.matmul(x, shared)), shared)

    report = cct_export.inspect(write(tmp_path / "twice.tflite", twice, (1, 6)))
    dense = all_of("FULLY_CONNECTED", report)
    assert [operator.parameters for operator in dense] == [36, 36]
    assert report.parameters == 36


def test_a_file_with_a_custom_operator_is_inspected_without_partitions(tmp_path, stock):
    from ai_edge_litert import schema_py_generated as schema

    def custom(model):
        for code in model.operatorCodes:
            if code.builtinCode == schema.BuiltinOperator.CUMSUM:
                code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
                code.customCode = b"TheirSum"
        for operator in model.subgraphs[0].operators:
            if model.operatorCodes[operator.opcodeIndex].customCode:
                operator.builtinOptionsType, operator.builtinOptions = 0, None

    report = cct_export.inspect(edited(stock, tmp_path / "custom.tflite", custom))
    assert "CUSTOM TheirSum" in by_kind(report)
    assert report.macs == cct_export.inspect(stock).macs
    assert report.nodes is report.delegated is report.partitions is None
    (warning,) = report.warnings
    assert "unresolved custom op: TheirSum" in warning


def test_a_file_whose_operators_read_a_missing_tensor_is_refused(tmp_path, stock):
    def read_missing(model):
        model.subgraphs[0].operators[0].inputs[1] = 999

    with pytest.raises(InvalidArtifact, match="not a readable TFLite file"):
        cct_export.inspect(edited(stock, tmp_path / "missing.tflite", read_missing))


def test_an_operator_newer_than_the_engine_is_named(tmp_path, stock):
    def newer(model):
        model.operatorCodes[0].version = 99

    with pytest.raises(InvalidArtifact, match="version '99'"):
        cct_export.inspect(edited(stock, tmp_path / "newer.tflite", newer))
