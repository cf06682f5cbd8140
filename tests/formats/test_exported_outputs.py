"""Models with every kind of output as files: the same values, names and classes as in Keras."""

import json

import keras
import numpy as np
import pytest
from output_kinds import HEADS
from PIL import Image

from cct_export import api
from cct_export.errors import InvalidArtifact
from cct_export.records import CONTRACT_KEY, Contract
from cct_export.runtimes import engine_of, litert, onnxruntime, session

FORMATS = ("tflite", "onnx")
SCHEMES = ("none", "int8")
IMAGES = np.random.default_rng(4).integers(0, 256, (5, 16, 16, 3), np.uint8)


def _keras_values(path):
    """The values of all outputs of the model beside a file, a row per image."""
    model = keras.saving.load_model(path.parent / "m.keras")
    outputs = model.predict(IMAGES.astype(np.float32), verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return np.concatenate([output.reshape(len(IMAGES), -1) for output in outputs], axis=1)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(IMAGES[0]).save(path)
    return path


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", HEADS)
def test_a_file_gives_the_values_of_all_outputs_in_their_order(head_exports, kind, format, trusted):
    path = head_exports(kind, format).path
    opened = engine_of(format).open_session(path, trusted=trusted)
    values = session.run(opened, IMAGES)
    opened.close()
    np.testing.assert_allclose(values, _keras_values(path), atol=1e-5)
    assert [output.activation for output in opened.outputs] == HEADS[kind][1]
    assert sum(output.width for output in opened.outputs) == values.shape[1]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", HEADS)
def test_every_kind_passes_parity_and_verify(head_exports, in_process, kind, format, scheme):
    export = head_exports(kind, format, scheme)
    parity = export.record["parity"]
    assert parity["passed"]
    assert (parity["output"] in ("weather", "indoors", "plate")) == (kind == "several")
    ended = in_process("export", "verify", export.path, "--samples", 20, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["parity"]["sqnr_db"] > 25


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", HEADS)
def test_predict_says_the_same_of_the_file_and_of_the_model(
    head_exports, picture, kind, format, scheme
):
    path = head_exports(kind, format, scheme).path
    (of_file,) = api.predict(path, images=picture)
    (of_model,) = api.predict(path.parent / "m.keras", images=picture)
    assert of_file.text == of_model.text
    assert [each.output for each in of_file.answers] == [each.output for each in of_model.answers]
    assert dict(of_file.top) == pytest.approx(dict(of_model.top), abs=0.03)
    count = {"one-sigmoid": 2, "one-logit": 2, "slots": 4}.get(kind, 5)
    assert len(of_file.top) == count
    assert len(of_file.text) == (4 if kind == "slots" else 0)


def test_one_sigmoid_is_shown_as_two_classes(head_exports, picture, in_process):
    path = head_exports("one-sigmoid", "tflite").path
    expected = float(_keras_values(path)[0, 0])
    ended = in_process("export", "predict", path, picture, "--json", "-")
    (prediction,) = ended.record["predictions"]
    scores = {entry["label"]: entry["probability"] for entry in prediction["top"]}
    assert scores == pytest.approx({"1": expected, "0": 1 - expected}, abs=1e-5)
    assert "logits or probabilities" not in ended.err


@pytest.mark.parametrize("format", FORMATS)
def test_outputs_have_their_names_in_the_file(head_exports, format):
    path = head_exports("several", format).path
    names = [tensor.name for tensor in api.inspect(path).outputs]
    assert names == ["weather", "indoors", "plate"]


def _with_contract(path, folder, change):
    """Returns a copy of an ONNX file whose contract ``change`` was applied to."""
    import onnx

    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == CONTRACT_KEY)
    fields = json.loads(entry.value)
    change(fields)
    entry.value = json.dumps(fields)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


CONTRADICTIONS = {
    "one output less": (lambda fields: fields["outputs"].pop(), "has 2 outputs"),
    "another order": (lambda fields: fields["outputs"].reverse(), r"output.shape is \(4, 7\)"),
    "other slots": (lambda fields: fields["outputs"][2].update(shape=[7, 4]), "output.classes is"),
    "no such activation": (
        lambda fields: fields["outputs"][0].update(activation="mish"),
        "cannot be read",
    ),
    "labels of no output": (lambda fields: fields.update(labels=["a", "b", "c"]), "of labels is 3"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_a_contract_of_other_outputs_is_refused(head_exports, tmp_path, change):
    edit, reason = CONTRADICTIONS[change]
    path = _with_contract(head_exports("several", "onnx").path, tmp_path, edit)
    with pytest.raises(InvalidArtifact, match=reason) as refused:
        onnxruntime.open_session(path)
    assert "\n" not in str(refused.value)


def test_a_file_without_contract_is_guessed_and_predict_says_so_once(
    head_exports, tmp_path, picture, in_process
):
    path = head_exports("one-sigmoid", "onnx").path
    plain = _with_contract(path, tmp_path, dict.clear)
    ended = in_process("export", "predict", plain, picture, picture, "--json", "-")
    assert ended.code == 0
    warning = f"{plain} does not say whether it gives logits or probabilities: "
    assert " ".join(ended.err.split()).count(warning) == 1
    expected = float(_keras_values(path)[0, 0])
    scores = {each["label"]: each["probability"] for each in ended.record["predictions"][0]["top"]}
    assert scores == pytest.approx({"1": expected, "0": 1 - expected}, abs=1e-5)


def test_a_contract_of_an_earlier_version_has_one_output_of_unknown_activation():
    text = '{"format": "onnx", "output": {"name": "logits", "dtype": "float32", "classes": 10}}'
    (output,) = Contract.parse(text).all_outputs
    assert (output.sizes, output.activation, output.has_slots) == ((10,), "", False)
    assert "outputs" not in Contract.parse(text).to_dict()


def test_integer_outputs_have_their_own_scale_each(tmp_path):
    import tensorflow as tf

    def model(image):
        mean = tf.reduce_mean(image, (1, 2))
        return mean, tf.nn.softmax(mean / 50)

    spec = [tf.TensorSpec((1, 16, 16, 3), tf.float32)]
    function = tf.function(model, input_signature=spec).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [image[None].astype(np.float32)] for image in IMAGES
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_output_type = tf.int8
    path = tmp_path / "m.tflite"
    path.write_bytes(converter.convert())
    opened = litert.open_session(path)
    scales = [quantization.scale for quantization in opened.output_quantizations]
    values = session.run(opened, IMAGES)
    opened.close()
    expected = np.concatenate([output.numpy() for output in model(IMAGES.astype(np.float32))], 1)
    assert scales[0] > 10 * scales[1]
    assert (np.abs(values - expected) <= 2.5 * np.repeat(scales, 3)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_several_outputs_are_measured_with_their_parity(head_exports, in_process, format):
    path = head_exports("several", format, "int8").path
    options = ("--min-runs", 3, "--min-seconds", 0, "--warmup-seconds", 0, "--json", "-")
    ended = in_process("bench", format, path, *options)
    assert ended.code == 0, ended.err
    (result,) = ended.record["results"]
    assert result["parity"]["passed"]
    assert result["parity"]["output"] in ("weather", "indoors", "plate")
