"""Exported files: input and output, operators, metadata, and the same logits in all variants."""

import keras
import numpy as np
import onnx
import pytest
from emitted import onnx_session, read_onnx, read_tflite, run_onnx, run_tflite

import cct_export
from cct_export.files import sha256
from cct_export.records import OutputContract

SCHEMES = ("none", "fp16", "int8-dynamic", "int8")
PAIRS = [(format, scheme) for format in ("tflite", "onnx") for scheme in SCHEMES]


@pytest.fixture(scope="module")
def pixels(digit_images):
    """A test digit with pixel values from all over 0 to 255, uint8 ``(1, 32, 32, 3)``."""
    pixels = digit_images[0][:1].copy()
    pixels[0, 0, :, 0] = np.arange(32) * 8
    pixels[0, 1, :, 0] = 255 - np.arange(32) * 8
    return pixels


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


def node_kinds(path):
    return [(node.domain, node.op_type) for node in read_onnx(path).graph.node]


@pytest.mark.parametrize(("format", "scheme"), PAIRS)
def test_every_scheme_of_every_format_passes_parity_and_reports_it(
    exports, digits_run, format, scheme
):
    path, record = exports(format, scheme)
    own = {"engine_operators"} if (format, scheme) == ("onnx", "int8") else set()
    assert set(record) == {"artifact", "parity"} | own
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
    assert contract.output == OutputContract("logits", "float32", 10, (10,), "none")
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
    kinds = [operator.kind for operator in read_tflite(exports("tflite", scheme).path).operators]
    assert kinds.count("CONV_2D") == 2
    assert not [kind for kind in kinds if kind in ("CUSTOM", "DELEGATE")]
    assert not [kind for kind in kinds if "RANDOM" in kind or "RNG" in kind]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_onnx_file_has_only_deterministic_operators_and_names_those_that_are_no_standard(
    exports, scheme
):
    path, record = exports("onnx", scheme)
    onnx.checker.check_model(read_onnx(path), full_check=True)
    names = node_kinds(path)
    own = {f"{domain}.{name}" for domain, name in names if domain not in ("", "ai.onnx")}
    assert sorted(own) == record.get("engine_operators", [])
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
        return {name for _, name in node_kinds(path) if "Random" in name}

    assert random_operators(tmp_path / "stock.onnx"), "Keras no longer exports them"
    path = tmp_path / "ours.onnx"
    cct_export.export_onnx(model, output=path, parity_samples=20)
    assert not random_operators(path)
    assert not random_operators(exports("onnx").path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_onnx_file_gives_the_same_logits_at_every_batch_size(exports, digit_images, scheme):
    path = exports("onnx", scheme).path
    images = digit_images[0][:256]
    batched = run_onnx(path, images, batched=True)
    assert batched.shape == (256, 10)
    batches = np.split(images[:252], 36)
    sevens = np.concatenate([run_onnx(path, batch, batched=True) for batch in batches])
    if scheme == "int8-dynamic":
        # Dynamic ranges span the whole batch.
        assert (batched[:252].argmax(1) == sevens.argmax(1)).mean() > 0.95
        return
    np.testing.assert_allclose(sevens, batched[:252], atol=1e-4)
    np.testing.assert_allclose(run_onnx(path, images), batched, atol=1e-4)


def test_without_dynamic_axes_an_onnx_file_takes_one_image(
    tmp_path, in_process, digits_model, exports, digit_images
):
    path = tmp_path / "one.onnx"
    ended = in_process(
        "export", "onnx", digits_model, "--no-dynamic-axes", "-o", path, "--samples", 32
    )
    assert ended.code == 0, ended.err
    assert onnx_session(path).get_inputs()[0].shape == [1, 32, 32, 3]
    image = digit_images[0][:1]
    np.testing.assert_allclose(
        run_onnx(path, image), run_onnx(exports("onnx").path, image), atol=1e-5
    )


@pytest.mark.parametrize("opset", [13, 23])
def test_the_first_and_the_last_opset_can_be_written(tmp_path, in_process, digits_model, opset):
    path = tmp_path / "m.onnx"
    ended = in_process(
        "export", "onnx", digits_model, "--opset", opset, "-o", path, "--samples", 32
    )
    assert ended.code == 0, ended.err
    versions = {entry.domain: entry.version for entry in read_onnx(path).opset_import}
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


@pytest.mark.parametrize(
    ("format", "scheme", "io"),
    [
        ("tflite", "none", "uint8"),
        ("tflite", "int8", "int8"),
        pytest.param("tflite", "none", "int8", marks=pytest.mark.slow),
        ("tflite", "int8", "uint8"),
        pytest.param("onnx", "none", "uint8", marks=pytest.mark.slow),
        ("onnx", "int8", "uint8"),
    ],
)
def test_integer_pixels_give_the_same_logits(exports, pixels, format, scheme, io):
    run = run_tflite if format == "tflite" else run_onnx
    expected = run(exports(format, scheme).path, pixels)
    np.testing.assert_array_equal(run(exports(format, scheme, io).path, pixels), expected)


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


@pytest.mark.parametrize(
    ("format", "scheme", "io"),
    [
        ("tflite", "none", "uint8"),
        ("tflite", "int8", "int8"),
        ("onnx", "none", "float32"),
        ("onnx", "int8", "uint8"),
    ],
)
def test_a_sequential_model_with_augmentation_and_softmax_exports(
    tmp_path, in_process, cnn, format, scheme, io
):
    path = tmp_path / f"cnn.{format}"
    options = ("--quantize", scheme, "--io", io, "-o", path, "--samples", 64, "--json", "-")
    ended = in_process("export", format, cnn, *options)
    assert ended.code == 0, ended.err
    assert ended.record["parity"]["images"] == "64 photo crops"
    assert ended.record["artifact"]["input"]["channels"] == "grey"
    assert ended.record["artifact"]["input"]["dtype"] == io
    assert ended.record["artifact"]["labels"] == []
    images = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 1), np.uint8)
    outputs = run_tflite(path, images) if format == "tflite" else run_onnx(path, images)
    expected = keras.saving.load_model(cnn).predict_on_batch(images.astype(np.float32))
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
