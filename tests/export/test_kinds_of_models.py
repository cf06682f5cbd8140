"""Models as people build and save them go through, in both formats."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from kinds_of_models import KINDS, SHAPE, plain, reshape_to, under

import cct_export
from cct_export.errors import ConversionError

EXPORTS = {"tflite": cct_export.export_tflite, "onnx": cct_export.export_onnx}


def _export(source, format, folder, scheme="none"):
    export = EXPORTS[format]
    return export(source, output=folder / f"m.{format}", scheme=scheme, parity_samples=16)


@pytest.mark.parametrize("format", EXPORTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_exported(kind, format, tmp_path):
    exported = _export(KINDS[kind](), format, tmp_path)
    assert exported.parity.passed, exported.parity.failures
    assert exported.parity.sqnr_db > 90


@pytest.mark.parametrize("format", EXPORTS)
@pytest.mark.parametrize("kind", ["backbone_with_a_dict", "subclassed", "batch_of_four"])
def test_it_is_quantized_too(kind, format, tmp_path):
    assert _export(KINDS[kind](), format, tmp_path, "int8").parity.passed


@pytest.mark.parametrize("format", EXPORTS)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_is_exported_from_its_file(policy, format, tmp_path):
    under(policy).save(tmp_path / "m.keras")
    exported = _export(tmp_path / "m.keras", format, tmp_path)
    assert exported.parity.sqnr_db > 90
    assert cct_export.verify(exported.artifact.path, samples=8).passed


@pytest.mark.parametrize("format", EXPORTS)
def test_other_files_are_exported(format, tmp_path):
    model = plain()
    model.save(tmp_path / "m.h5")
    model.export(tmp_path / "saved", verbose=False)
    for name in ("m.h5", "saved"):
        exported = _export(tmp_path / name, format, tmp_path)
        assert exported.parity.sqnr_db > 90
        assert exported.artifact.contract.source == str(tmp_path / name)


def test_a_file_of_a_model_of_one_image_takes_one(tmp_path, caplog):
    # No plan can hold the convolution: the model is traced with its batch.
    image = keras.Input(SHAPE, batch_size=1)
    x = layers.Conv2D(4, 3, dilation_rate=2)(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(5)(keras.ops.reshape(x, (1, -1))), name="one")
    with caplog.at_level("INFO", "cct_export"):
        exported = _export(model, "onnx", tmp_path)
    assert (
        "one takes one image at a time, which its graph says: so does the file" in caplog.messages
    )
    assert exported.parity.sqnr_db > 90
    assert exported.artifact.contract.batch == 1
    (graph_input,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert graph_input.type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("format", EXPORTS)
def test_a_model_of_four_images_whose_steps_are_known_is_exported_for_one(tmp_path, format):
    exported = _export(reshape_to(4), format, tmp_path)
    assert exported.parity.sqnr_db > 90


def test_a_model_of_four_images_whose_graph_says_so_is_refused(tmp_path):
    image = keras.Input(SHAPE, batch_size=4)
    x = layers.Conv2D(2, 3, dilation_rate=2)(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(5)(keras.ops.reshape(x, (4, -1))))
    for format in EXPORTS:
        with pytest.raises(ConversionError, match="takes exactly 4 images at a time") as refused:
            _export(model, format, tmp_path)
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_images_are_classified_with_the_file_as_with_the_model(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    KINDS["reshape_to_one"]().save(tmp_path / "m.keras")
    _export(tmp_path / "m.keras", "tflite", tmp_path)
    (expected,) = cct_export.predict(tmp_path / "m.keras", images=tmp_path / "0.png")
    (prediction,) = cct_export.predict(tmp_path / "m.tflite", images=tmp_path / "0.png")
    assert [label for label, _ in prediction.top] == [label for label, _ in expected.top]
    probabilities = [probability for _, probability in prediction.top]
    np.testing.assert_allclose(probabilities, [p for _, p in expected.top], atol=1e-5)
