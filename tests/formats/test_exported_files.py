"""Exported files: input and output, operators, metadata, and the same logits in all variants."""

import keras
import numpy as np
import pytest
from PIL import Image

import cct_export
from cct_export.files import sha256
from cct_export.records import OutputContract

SCHEMES = ("none", "fp16", "int8-dynamic", "int8")
PAIRS = [(format, scheme) for format in ("tflite", "onnx") for scheme in SCHEMES]


@pytest.fixture(scope="module")
def png(tmp_path_factory, digit_images):
    """A PNG file of a test digit, with pixel values from all over 0 to 255."""
    path = tmp_path_factory.mktemp("png") / "digit.png"
    pixels = digit_images[0][0].copy()
    pixels[0, :, 0] = np.arange(32) * 8
    pixels[1, :, 0] = 255 - np.arange(32) * 8
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """A ``.keras`` file of another model: Sequential, grey, with augmentation and a softmax."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((12, 16, 1)),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(0.1),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    path = tmp_path_factory.mktemp("cnn") / "cnn.keras"
    model.save(path)
    return path


def onnx_session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run_onnx(path, images):
    return onnx_session(path).run(["logits"], {"image": images})[0]


def run_tflite(path, image):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return runner(image=image)["logits"]


def operators(path):
    """Returns the builtin operators of a flatbuffer by name, one entry per node."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    model = flatbuffer_utils.read_model(str(path))
    codes = [code.builtinCode for code in model.operatorCodes]
    return [names[codes[o.opcodeIndex]] for graph in model.subgraphs for o in graph.operators]


def graph_operators(path):
    import onnx

    return [(node.domain, node.op_type) for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(("format", "scheme"), PAIRS)
def test_every_scheme_of_every_format_passes_parity_and_reports_it(
    exports, digits_run, format, scheme
):
    path, record = exports(format, scheme)
    assert set(record) == {"artifact", "parity"}
    artifact, parity = record["artifact"], record["parity"]
    assert artifact["path"] == str(path)
    assert (artifact["format"], artifact["scheme"], artifact["io"]) == (format, scheme, "float32")
    assert artifact["size_bytes"] == path.stat().st_size
    assert artifact["sha256"] == sha256(path)
    assert artifact["source_sha256"] == sha256(digits_run / "best.keras")
    assert parity["samples"] == 360
    assert parity["passed"] is parity["finite"] is True
    assert parity["failures"] == []
    assert {"max_abs", "sqnr_db", "cosine", "top1_agreement", "decided"} <= set(parity)
    assert parity["decided"] > 300


@pytest.mark.parametrize(("format", "scheme"), PAIRS)
def test_the_record_names_the_calibration_images(exports, format, scheme):
    origin = exports(format, scheme).record["artifact"]["calibration"]
    assert origin == ("200 training images of digits" if "int" in scheme else "")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_contains_its_contract(exports, digits_run, format):
    from cct_export.runtimes import litert, onnxruntime

    path = exports(format).path
    engine = litert if format == "tflite" else onnxruntime
    contract = engine.open_session(path).contract
    assert contract.labels == tuple("0123456789")
    assert contract.source_sha256 == sha256(digits_run / "best.keras")
    batch = 1 if format == "tflite" else None
    assert contract.input.shape == (batch, 32, 32, 3)
    assert contract.input.range == (0, 255)
    assert contract.input.channels == "RGB"
    assert contract.output == OutputContract("logits", "float32", 10)
    assert contract.versions["keras"] == keras.__version__
    json_text = f'"source_sha256": "{contract.source_sha256}"'
    assert json_text.encode() in path.read_bytes()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tflite_file_has_one_signature_from_image_to_logits(exports, scheme):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exports("tflite", scheme).path))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (tuple(image["shape"]), image["dtype"]) == ((1, 32, 32, 3), np.float32)
    assert tuple(image["shape_signature"]) == (1, 32, 32, 3)
    assert (tuple(logits["shape"]), logits["dtype"]) == ((1, 10), np.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tflite_file_has_only_deterministic_builtin_operators(exports, scheme):
    names = operators(exports("tflite", scheme).path)
    assert names.count("CONV_2D") == 2
    assert not [name for name in names if name in ("CUSTOM", "DELEGATE")]
    assert not [name for name in names if "RANDOM" in name or "RNG" in name]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_onnx_file_has_only_deterministic_standard_operators(exports, scheme):
    import onnx

    path = exports("onnx", scheme).path
    onnx.checker.check_model(onnx.load(path), full_check=True)
    names = graph_operators(path)
    assert not [name for domain, name in names if domain not in ("", "ai.onnx")]
    assert not [name for _, name in names if "Random" in name or name in ("Bernoulli", "If")]
    session = onnx_session(path)
    assert [end.name for end in session.get_inputs()] == ["image"]
    assert [end.name for end in session.get_outputs()] == ["logits"]
    assert session.get_inputs()[0].shape[1:] == [32, 32, 3]
    assert not isinstance(session.get_inputs()[0].shape[0], int)


@pytest.mark.slow
def test_a_file_lacks_the_random_operators_that_keras_itself_exports(
    tmp_path, exports, digits_model, digit_images
):
    # As in the keras.io example: with augmentation layers inside.
    image = keras.Input((32, 32, 3))
    flipped = keras.layers.RandomFlip("horizontal")(image)
    model = keras.Model(image, keras.saving.load_model(digits_model)(flipped))
    model.predict_on_batch(digit_images[0][:1].astype(np.float32))
    model.export(tmp_path / "stock.onnx", format="onnx", verbose=False)

    def random_operators(path):
        return {name for _, name in graph_operators(path) if "Random" in name}

    assert random_operators(tmp_path / "stock.onnx"), "Keras no longer exports them"
    path = tmp_path / "ours.onnx"
    cct_export.export_onnx(model, output=path, parity_samples=20)
    assert not random_operators(path)
    assert not random_operators(exports("onnx").path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_onnx_file_gives_the_same_logits_at_every_batch_size(exports, digit_images, scheme):
    session = onnx_session(exports("onnx", scheme).path)
    images = digit_images[0][:256].astype(np.float32)

    def run(batch):
        return session.run(["logits"], {"image": batch})[0]

    batched = run(images)
    assert batched.shape == (256, 10)
    if scheme == "int8-dynamic":
        # Dynamic ranges span the whole batch.
        sevens = np.concatenate([run(images[i : i + 7]) for i in range(0, 252, 7)])
        assert (batched[:252].argmax(1) == sevens.argmax(1)).mean() > 0.95
        return
    for size in (1, 7):
        parts = [run(images[i : i + size]) for i in range(0, 256, size)]
        np.testing.assert_allclose(np.concatenate(parts), batched, atol=1e-4)


def test_without_dynamic_axes_an_onnx_file_takes_one_image(
    tmp_path, in_process, digits_model, exports, digit_images
):
    path = tmp_path / "one.onnx"
    ended = in_process(
        "export", "onnx", digits_model, "--no-dynamic-axes", "-o", path, "--samples", 32
    )
    assert ended.code == 0, ended.err
    assert onnx_session(path).get_inputs()[0].shape == [1, 32, 32, 3]
    image = digit_images[0][:1].astype(np.float32)
    np.testing.assert_allclose(
        run_onnx(path, image), run_onnx(exports("onnx").path, image), atol=1e-5
    )


@pytest.mark.parametrize("opset", [13, 23])
def test_the_first_and_the_last_opset_can_be_written(tmp_path, in_process, digits_model, opset):
    import onnx

    path = tmp_path / "m.onnx"
    ended = in_process(
        "export", "onnx", digits_model, "--opset", opset, "-o", path, "--samples", 32
    )
    assert ended.code == 0, ended.err
    versions = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    assert versions[""] == opset


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "fp16"])
def test_the_oldest_opset_can_be_quantized(tmp_path, in_process, digits_model, scheme):
    path = tmp_path / "m.onnx"
    arguments = ("--opset", 13, "-o", path, "--samples", 64, "--data", "digits")
    ended = in_process("export", "onnx", digits_model, "--quantize", scheme, *arguments)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("opset", [12, 24, 99])
def test_an_opset_that_cannot_be_written_is_refused(tmp_path, in_process, digits_model, opset):
    path = tmp_path / "m.onnx"
    ended = in_process("export", "onnx", digits_model, "--opset", opset, "-o", path)
    assert ended.code == 2
    assert ended.err == (f"error: opset {opset} is not one that can be written: choose 13 to 23\n")
    assert not path.exists()


@pytest.mark.parametrize("scheme", ["none", "int8"])
@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_integer_pixels_give_a_tflite_file_the_same_logits(exports, png, scheme, io):
    pixels = np.asarray(Image.open(png), np.uint8)[np.newaxis]
    expected = run_tflite(exports("tflite", scheme).path, pixels.astype(np.float32))
    shifted = pixels if io == "uint8" else (pixels.astype(int) - 128).astype(np.int8)
    logits = run_tflite(exports("tflite", scheme, io).path, shifted)
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_integer_pixels_give_an_onnx_file_the_same_logits(exports, png, scheme):
    pixels = np.asarray(Image.open(png), np.uint8)[np.newaxis]
    expected = run_onnx(exports("onnx", scheme).path, pixels.astype(np.float32))
    np.testing.assert_array_equal(run_onnx(exports("onnx", scheme, "uint8").path, pixels), expected)


@pytest.mark.parametrize(("io", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_an_integer_input_has_the_scale_and_zero_point_of_pixels(exports, io, zero_point):
    from ai_edge_litert.interpreter import Interpreter

    path, record = exports("tflite", "int8", io)
    interpreter = Interpreter(str(path))
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert image["dtype"] == np.dtype(io)
    assert image["quantization"] == (1.0, zero_point)
    assert logits["dtype"] == np.float32
    assert record["artifact"]["input"]["dtype"] == io
    assert record["artifact"]["input"]["range"] == ([0, 255] if io == "uint8" else [-128, 127])


@pytest.mark.parametrize("scheme", ["none", "int8"])
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_sequential_model_with_augmentation_and_softmax_exports(
    tmp_path, in_process, cnn, format, scheme
):
    path = tmp_path / f"cnn.{format}"
    arguments = ("--quantize", scheme, "-o", path, "--samples", 64, "--json", "-")
    ended = in_process("export", format, cnn, *arguments)
    assert ended.code == 0, ended.err
    assert ended.record["parity"]["images"] == "64 photo crops"
    assert ended.record["artifact"]["input"]["channels"] == "grey"
    assert ended.record["artifact"]["labels"] == []
    images = np.random.default_rng(0).uniform(0, 255, (1, 12, 16, 1)).astype(np.float32)
    outputs = run_tflite(path, images) if format == "tflite" else run_onnx(path, images)
    expected = keras.saving.load_model(cnn).predict_on_batch(images)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 if scheme == "none" else 0.05)
    assert outputs.sum() == pytest.approx(1, abs=1e-3)


def test_a_layer_that_tflite_lacks_is_a_conversion_error(tmp_path):
    from cct_export.errors import ConversionError
    from cct_export.formats.traced import convert_tflite
    from cct_export.specs import ExportSpec

    image = keras.Input((8, 8, 3))
    values = keras.ops.fft2((image[..., 0], image[..., 1]))[0]
    model = keras.Model(image, keras.ops.reshape(values, (-1, 64))[:, :4])
    with pytest.raises(ConversionError, match="refused"):
        convert_tflite(model, ExportSpec("tflite"))
