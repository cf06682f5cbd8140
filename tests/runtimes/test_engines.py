"""Sessions of real engines, and their errors for broken files and files of another kind."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.runtimes import engine_of, litert, onnxruntime, session
from cct_export.runtimes.keras import KerasSession

FORMATS = ("tflite", "onnx")
SHAPE = (1, 4, 4, 3)


def _error_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("format", FORMATS)
def test_a_session_gives_the_logits_of_keras(exports, digits_model, digit_images, format):
    from cct_export import api

    images = digit_images[0][:70]
    reference = session.run(KerasSession(api.load(digits_model)), images)
    opened = engine_of(format).open_session(exports(format).path)
    np.testing.assert_allclose(session.run(opened, images), reference, atol=1e-4)
    assert opened.image_shape == (32, 32, 3)
    assert opened.io == "float32"
    assert opened.batch == (1 if format == "tflite" else None)
    assert opened.engine[0] == {"tflite": "litert", "onnx": "onnxruntime"}[format]


@pytest.mark.parametrize("format", FORMATS)
def test_threads_do_not_change_the_logits(exports, digit_images, format):
    logits = [
        session.run(
            engine_of(format).open_session(exports(format).path, threads=threads, trusted=True),
            digit_images[0][:8],
        )
        for threads in (1, 2)
    ]
    np.testing.assert_allclose(*logits, atol=1e-5)


def _threads_after(code, *arguments):
    process = subprocess.run(
        [sys.executable, "-c", code + "\nprint(len(os.listdir('/proc/self/task')))", *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(process.stdout)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")  # noqa: PTH112
@pytest.mark.parametrize("format", FORMATS)
def test_the_engine_uses_the_requested_number_of_threads(exports, format):
    module = engine_of(format).__name__
    code = (
        f"import os, sys, pathlib, numpy; from {module} import open_session\n"
        "s = open_session(pathlib.Path(sys.argv[1]), threads=int(sys.argv[2]), trusted=True)\n"
        "s.invoke(numpy.zeros((1, 32, 32, 3), 'float32'))"
    )
    path = str(exports(format).path)
    assert _threads_after(code, path, "3") == _threads_after(code, path, "1") + 2


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_xnnpack_runs_every_node_of_the_cct(exports, scheme):
    opened = litert.open_session(exports("tflite", scheme).path)
    assert opened.delegated_nodes == opened.total_nodes > 50


def test_onnx_runtime_runs_every_node_of_the_cct(exports):
    opened = onnxruntime.open_session(exports("onnx").path)
    assert opened.delegated_nodes == opened.total_nodes > 50


def _convert(function, *shapes, dtype="float32"):
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert()


def test_nodes_that_xnnpack_does_not_support_are_counted_as_not_delegated(tmp_path):
    import tensorflow as tf

    # XNNPACK supports the dense layers, and not the one-hot between them.
    def function(image):
        rows = tf.reshape(image, (1, -1)) @ tf.ones((48, 5))
        best = tf.one_hot(tf.argmax(rows, 1), 5)
        return best @ tf.ones((5, 3))

    path = tmp_path / "m.tflite"
    path.write_bytes(_convert(function, SHAPE))
    opened = litert.open_session(path)
    assert 0 < opened.delegated_nodes < opened.total_nodes


@pytest.mark.parametrize(
    "case", ["two inputs", "a map beside logits", "flat image", "unpooled", "any size"]
)
def test_a_tflite_file_that_does_not_map_an_image_to_logits_is_refused(tmp_path, case):
    import tensorflow as tf

    content = {
        "two inputs": lambda: _convert(lambda a, b: tf.reduce_sum(a + b, (1, 2)), SHAPE, SHAPE),
        "a map beside logits": lambda: _convert(lambda a: (tf.reduce_sum(a, (1, 2)), a * 2), SHAPE),
        "flat image": lambda: _convert(lambda a: a * 2, (1, 48)),
        "unpooled": lambda: _convert(lambda a: a * 2, SHAPE),
        "any size": lambda: _convert(lambda a: tf.reduce_mean(a, (1, 2)), (1, None, None, 3)),
    }[case]()
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(InvalidArtifact, match="does not map one image to logits") as error:
        litert.open_session(path)
    assert str(path) in _error_line(error)


def test_a_tflite_file_whose_input_is_no_pixels_is_refused(tmp_path):
    import tensorflow as tf

    path = tmp_path / "m.tflite"
    path.write_bytes(_convert(lambda a: tf.reduce_sum(a, (1, 2)), SHAPE, dtype="int32"))
    with pytest.raises(InvalidArtifact, match="int32") as error:
        litert.open_session(path)
    assert str(path) in _error_line(error)


def _onnx(inputs, outputs, nodes, type=1):
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node(*node[:3], **node[3]) for node in nodes],
        "g",
        [helper.make_tensor_value_info(name, type, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, type, shape) for name, shape in outputs],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


_FLAT = [("Flatten", ["a"], ["y"], {})]
_POOL = [("GlobalAveragePool", ["a"], ["p"], {}), ("Flatten", ["p"], ["y"], {})]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            lambda: _onnx(
                [("a", SHAPE), ("b", SHAPE)], [("y", SHAPE)], [("Add", ["a", "b"], ["y"], {})]
            ),
            "does not map one image to logits",
        ),
        (
            lambda: _onnx([("a", SHAPE)], [("y", SHAPE)], [("Relu", ["a"], ["y"], {})]),
            "does not map one image to logits",
        ),
        (
            lambda: _onnx([("a", [1, 12])], [("y", [1, 12])], [("Relu", ["a"], ["y"], {})]),
            "does not map one image to logits",
        ),
        (lambda: _onnx([("a", ["n", "h", "w", 3])], [("y", ["n", "h"])], _POOL), "size"),
        (lambda: _onnx([("a", SHAPE)], [("y", [1, 48])], _FLAT, type=11), "not float32 or uint8"),
    ],
    ids=["two inputs", "unpooled", "flat image", "any size", "double"],
)
def test_an_onnx_file_that_does_not_map_an_image_to_logits_is_refused(tmp_path, content, reason):
    path = tmp_path / "m.onnx"
    path.write_bytes(content())
    with pytest.raises(InvalidArtifact, match=reason) as error:
        onnxruntime.open_session(path)
    assert str(path) in _error_line(error)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("damage", ["empty", "text", "header", "half", "tail", "zeros"])
def test_a_broken_file_is_an_invalid_artifact(tmp_path, exports, format, damage):
    intact = exports(format).path.read_bytes()
    content = {
        "empty": b"",
        "text": b"this is a shopping list, not a model\n" * 20,
        "header": intact[:20],
        "half": intact[: len(intact) // 2],
        "tail": intact[:-5000],
        "zeros": intact[:8] + bytes(len(intact) - 8),
    }[damage]
    path = tmp_path / f"m.{format}"
    path.write_bytes(content)
    with pytest.raises(InvalidArtifact) as error:
        engine_of(format).open_session(path)
    assert str(path) in _error_line(error)


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_file_is_an_invalid_request(tmp_path, format):
    with pytest.raises(InvalidRequest, match="no such file"):
        engine_of(format).open_session(tmp_path / f"m.{format}")


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
)
def test_random_damage_never_crashes_this_process(tmp_path, exports, seed):
    random = np.random.default_rng(seed)
    content = bytearray(exports("tflite").path.read_bytes())
    for position in random.integers(8, len(content), 40):
        content[position] = random.integers(256)
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    try:
        logits = session.run(litert.open_session(path), np.zeros((1, 32, 32, 3), np.uint8))
    except InvalidArtifact as error:
        assert "\n" not in str(error)
    else:
        assert logits.shape == (1, 10)


def test_an_onnx_file_whose_contract_is_damaged_is_refused(exports, tmp_path):
    import onnx

    model = onnx.load(exports("onnx").path)
    assert json.loads(model.metadata_props[0].value)["format"] == "onnx"
    model.metadata_props[0].value = "{half"
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(InvalidArtifact) as error:
        onnxruntime.open_session(path)
    assert str(path) in _error_line(error)


class _FirstPixel:
    """A session whose logits are each image's first pixel, and that records its inputs."""

    image_shape = (1, 1, 1)
    layout = "NHWC"
    output_quantizations = ()

    def __init__(self, io, batch, quantization=None):
        self.io, self.batch, self.inputs = io, batch, []
        self.input_quantization = quantization

    def invoke(self, prepared):
        self.inputs.append(prepared)
        return prepared.reshape(len(prepared), -1)[:, :1].astype(np.float32)


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_every_image_has_its_own_row_at_any_batch(batch, count):
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    opened = _FirstPixel("float32", batch)
    assert session.run(opened, images, batch=4)[:, 0].tolist() == list(range(count))
    assert {len(prepared) for prepared in opened.inputs} <= ({batch} if batch else {1, 4})


@pytest.mark.parametrize(
    ("io", "quantization", "expected"),
    [
        ("float32", None, [0, 127, 255]),
        ("uint8", None, [0, 127, 255]),
        ("uint8", session.Quantization(1.0, 0), [0, 127, 255]),
        ("int8", session.Quantization(1.0, -128), [-128, -1, 127]),
        ("int8", session.Quantization(2.0, -10), [-10, 54, 118]),
        ("int8", session.Quantization(0.5, -128), [-128, 126, 127]),
    ],
)
def test_pixels_are_quantized_as_the_input_of_the_file_is(io, quantization, expected):
    pixels = np.array([0, 127, 255], np.uint8).reshape(3, 1, 1, 1)
    prepared = session.prepare(_FirstPixel(io, None, quantization), pixels)
    assert prepared.dtype == np.dtype(io)
    assert prepared.ravel().tolist() == expected


@pytest.fixture(scope="module")
def stock_model():
    """A small CNN, converted by TensorFlow's own converter."""
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_the_integer_logits_of_a_stock_file_are_dequantized(
    tmp_path, stock_model, digit_images, io
):
    import tensorflow as tf

    images = digit_images[0][:50]
    converter = tf.lite.TFLiteConverter.from_keras_model(stock_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None] / np.float32(1)] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io)
    path = tmp_path / "stock.tflite"
    path.write_bytes(converter.convert())
    opened = litert.open_session(path)
    assert opened.io == io
    assert opened.input_quantization is not None
    logits = session.run(opened, images)
    expected = stock_model.predict(images.astype(np.float32), verbose=0)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=0.1 * np.abs(expected).max())
