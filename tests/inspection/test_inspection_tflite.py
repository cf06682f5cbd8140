"""What is found in a TFLite file: cost by hand, quantization, what the delegate takes."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import cct_export
from cct_export.errors import InvalidArtifact
from cct_export.graph.fold import fold
from cct_export.graph.lower import lower


def write(path, function, shape, **settings):
    """Converts ``function`` of one float32 tensor with TensorFlow's own converter."""
    traced = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    for name, value in settings.items():
        setattr(converter, name, value)
    path.write_bytes(converter.convert())
    return path


def weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def edited(source, path, change):
    """Writes ``source`` to ``path`` with its flatbuffer changed."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(source))
    change(model)
    path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return path


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A file of TensorFlow's converter with an operator in its middle that XNNPACK lacks."""

    def net(x):
        x = tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 3, 8), 2, "SAME") + weights(8))
        x = tf.nn.depthwise_conv2d(x, weights(3, 3, 8, 2), [1, 1, 1, 1], "VALID")
        x = tf.nn.conv2d_transpose(x, weights(2, 2, 4, 16), (1, 12, 12, 4), 2, "VALID")
        x = tf.reshape(tf.cumsum(x, 1), (1, 144, 4))
        return tf.matmul(x, x, transpose_a=True)

    return write(tmp_path_factory.mktemp("stock") / "stock.tflite", net, (1, 16, 16, 3))


@pytest.fixture(scope="module")
def full_int8(tmp_path_factory):
    """A dense layer that TensorFlow's own converter quantized, ends and all."""
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


def steps(inspection):
    return {step.kind: step for step in inspection.operators}


def test_a_convolution_costs_its_taps_times_what_it_gives(stock):
    found = steps(cct_export.inspect(stock))
    assert found["CONV_2D"].shape == (1, 8, 8, 8)
    assert found["CONV_2D"].macs == 8 * 8 * 8 * (3 * 3 * 3)
    assert found["CONV_2D"].parameters == 3 * 3 * 3 * 8 + 8
    assert found["DEPTHWISE_CONV_2D"].shape == (1, 6, 6, 16)
    assert found["DEPTHWISE_CONV_2D"].macs == 6 * 6 * 16 * (3 * 3)
    # The converter gives a layer without bias one of zeros.
    assert found["DEPTHWISE_CONV_2D"].parameters == 3 * 3 * 16 + 16
    assert found["TRANSPOSE_CONV"].shape == (1, 12, 12, 4)
    assert found["TRANSPOSE_CONV"].macs == 6 * 6 * 16 * (2 * 2 * 4)
    assert found["TRANSPOSE_CONV"].parameters == 2 * 2 * 4 * 16
    assert {step.weight_dtype for step in found.values() if step.parameters} == {"float32"}


def test_a_product_of_two_activations_costs_but_has_no_parameters(stock):
    found = cct_export.inspect(stock)
    product = steps(found)["BATCH_MATMUL"]
    assert (product.shape, product.macs, product.parameters) == ((1, 4, 4), 4 * 4 * 144, 0)
    assert product.weight_dtype is None
    assert found.macs == 13824 + 5184 + 9216 + 2304
    assert found.parameters == 224 + 160 + 256


def test_shapes_and_axes_are_no_parameters_and_other_operators_cost_nothing(stock):
    found = steps(cct_export.inspect(stock))
    assert (found["RESHAPE"].parameters, found["RESHAPE"].macs) == (0, 0)
    assert (found["CUMSUM"].parameters, found["CUMSUM"].macs) == (0, 0)


def test_an_operator_that_the_delegate_lacks_parts_the_graph(stock):
    found = cct_export.inspect(stock)
    places = [step.partition for step in found.operators]
    gap = [step.kind for step in found.operators].index("CUMSUM")
    assert places == [0] * gap + [None] + [1] * (len(places) - gap - 1)
    assert (found.partitions, found.nodes) == (2, len(places))
    assert found.delegated == len(places) - 1
    assert {kind.name: kind.delegated for kind in found.kinds()}["CUMSUM"] == 0


def test_partitions_are_those_that_bench_counts_nodes_in(exports):
    from cct_export.runtimes import litert

    path = exports("tflite", "int8").path
    found, session = cct_export.inspect(path), litert.open_session(path)
    assert (found.delegated, found.nodes) == (session.delegated_nodes, session.total_nodes)
    assert found.partitions == 1
    assert {step.partition for step in found.operators} == {0}


def test_a_stock_file_has_no_scheme_and_the_names_of_its_signature(stock):
    found = cct_export.inspect(stock)
    assert found.scheme is None
    assert found.format == "tflite"
    assert found.size_bytes == stock.stat().st_size
    assert [(end.name, end.dtype, end.shape) for end in found.inputs] == [
        ("x", "float32", (1, 16, 16, 3))
    ]
    assert [end.shape for end in found.outputs] == [(1, 4, 4)]
    assert found.quantized == found.warnings == ()


def test_an_open_batch_counts_as_one_image(tmp_path):
    path = write(
        tmp_path / "open.tflite",
        lambda x: tf.nn.conv2d(x, weights(3, 3, 3, 8), 1, "SAME"),
        (None, 16, 16, 3),
    )
    found = cct_export.inspect(path)
    assert found.inputs[0].shape == (None, 16, 16, 3)
    assert found.operators[0].shape == (1, 16, 16, 8)
    assert found.macs == 16 * 16 * 8 * 27


@pytest.mark.parametrize("scheme", ["none", "fp16", "int8-dynamic", "int8"])
def test_every_scheme_has_the_parameters_of_the_model_and_one_cost(exports, digits_model, scheme):
    plan = fold(lower(keras.saving.load_model(digits_model)))
    found = cct_export.inspect(exports("tflite", scheme).path)
    convolutions = [step for step in found.operators if step.kind == "CONV_2D"]
    # The tokenizer has no biases; TFLite's convolutions want zeros.
    zeros = sum(step.shape[-1] for step in convolutions)
    assert found.parameters == plan.parameters + zeros
    assert sum(kind.parameters for kind in found.kinds()) == found.parameters
    assert found.macs == plan.total_macs
    wanted = {"none": "float32", "fp16": "float16"}.get(scheme, "int8")
    dense = [step.weight_dtype for step in found.operators if step.kind == "FULLY_CONNECTED"]
    # The scores of the pooling are too small to gain anything.
    assert set(dense) == ({wanted} if "int8" not in scheme else {wanted, "float32"})
    assert found.scheme == scheme
    assert (found.inputs[0].name, found.outputs[0].name) == ("image", "logits")


def test_the_cost_of_the_small_transformer_is_that_of_its_layers(exports, digits_model):
    keras_model = keras.saving.load_model(digits_model)
    found = cct_export.inspect(exports("tflite").path)
    convolutions = [step for step in found.operators if step.kind == "CONV_2D"]
    kernels = [w.shape for w in keras_model.weights if len(w.shape) == 4]
    assert [step.macs for step in convolutions] == [
        math.prod(step.shape) * math.prod(kernel[:3])
        for step, kernel in zip(convolutions, kernels, strict=True)
    ]


def test_a_file_quantized_end_to_end_tells_every_scale(full_int8):
    found = cct_export.inspect(full_int8)
    (image,), (logits,) = found.inputs, found.outputs
    # Ranges of (-1, 3) in 255 steps: zero stands at -128 + 255 / 4.
    assert (image.dtype, image.granularity) == ("int8", "tensor")
    assert image.scales == pytest.approx([4 / 255])
    assert image.zero_points == (-64,)
    assert logits.dtype == "int8"
    (dense,) = [step for step in found.operators if step.kind == "FULLY_CONNECTED"]
    assert (dense.macs, dense.parameters, dense.weight_dtype) == (8 * 5, 8 * 5 + 5, "int8")
    by_type = {tensor.dtype: tensor for tensor in found.quantized if tensor.shape == (5,)}
    assert set(by_type) == {"int32"}
    (kernel,) = [tensor for tensor in found.quantized if tensor.shape == (5, 8)]
    assert (kernel.granularity, kernel.axis) == ("channel", 0)
    assert kernel.scales == pytest.approx(np.abs(weights(8, 5)).max(axis=0) / 127, rel=1e-5)
    assert set(kernel.zero_points) == {0}


def test_an_int8_export_tells_its_kernels_per_channel_and_its_images_per_tensor(
    exports, digits_model
):
    found = cct_export.inspect(exports("tflite", "int8", "uint8").path)
    (image,) = found.inputs
    assert (image.dtype, image.scales, image.zero_points) == ("uint8", (1.0,), (0,))
    kernels = [tensor for tensor in found.quantized if len(tensor.shape) == 4 and tensor.axis == 0]
    trained = [w for w in keras.saving.load_model(digits_model).weights if len(w.shape) == 4]
    # The converter multiplies the rescaling of pixels into the first kernel.
    for weight, rescaling in zip(trained, (255, 1), strict=True):
        height, width, inside, outside = weight.shape
        (kernel,) = [k for k in kernels if k.shape == (outside, height, width, inside)]
        assert (kernel.dtype, kernel.granularity) == ("int8", "channel")
        largest = np.abs(np.asarray(weight)).max(axis=(0, 1, 2))
        assert kernel.scales == pytest.approx(largest / 127 / rescaling, rel=1e-3)
    biases = [tensor for tensor in found.quantized if tensor.dtype == "int32"]
    assert len(biases) == len(trained)


def test_a_weight_that_two_operators_read_counts_once_in_the_total(tmp_path):
    def twice(x):
        shared = tf.constant(weights(6, 6))
        return tf.matmul(tf.nn.tanh(tf.matmul(x, shared)), shared)

    found = cct_export.inspect(write(tmp_path / "twice.tflite", twice, (1, 6)))
    dense = [step for step in found.operators if step.kind == "FULLY_CONNECTED"]
    assert [step.parameters for step in dense] == [36, 36]
    assert found.parameters == 36


def test_a_file_with_an_operator_of_somebody_else_is_read_but_not_placed(tmp_path, stock):
    from ai_edge_litert import schema_py_generated as schema

    def foreign(model):
        for code in model.operatorCodes:
            if code.builtinCode == schema.BuiltinOperator.CUMSUM:
                code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
                code.customCode = b"TheirSum"
        for step in model.subgraphs[0].operators:
            if model.operatorCodes[step.opcodeIndex].customCode:
                step.builtinOptionsType, step.builtinOptions = 0, None

    found = cct_export.inspect(edited(stock, tmp_path / "foreign.tflite", foreign))
    assert "CUSTOM TheirSum" in steps(found)
    assert found.macs == cct_export.inspect(stock).macs
    assert found.nodes is found.delegated is found.partitions is None
    (warning,) = found.warnings
    assert "unresolved custom op: TheirSum" in warning


def test_a_file_whose_operators_read_what_is_not_there_is_refused(tmp_path, stock):
    def astray(model):
        model.subgraphs[0].operators[0].inputs[1] = 999

    with pytest.raises(InvalidArtifact, match="not a readable TFLite file"):
        cct_export.inspect(edited(stock, tmp_path / "astray.tflite", astray))


def test_an_operator_newer_than_the_engine_is_named(tmp_path, stock):
    def newer(model):
        model.operatorCodes[0].version = 99

    with pytest.raises(InvalidArtifact, match="version '99'"):
        cct_export.inspect(edited(stock, tmp_path / "newer.tflite", newer))
