"""Models with weights that no training gives: they export, or fail with one line."""

import json
from itertools import product

import keras
import numpy as np
import pytest

import cct_export
from cct_export.errors import ConversionError, InvalidModel
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec

SPEC = ModelSpec(
    name="s", image_size=16, filters=(8, 16), layers=1, head_dim=16, mlp_units=(16, 16)
)


def small_model(edit):
    """A small CCT with random weights, each of them edited."""
    keras.utils.set_random_seed(0)
    model = CCT(SPEC)
    for weight in model.weights:
        values = np.array(weight)
        if values.dtype.kind == "f":
            weight.assign(edit(weight.path, values).astype(values.dtype))
    return model


def with_tiny_weights(layer, size):
    """A model with tiny weights of a layer's first output, and a normal bias."""

    def edit(path, values):
        if layer in path:
            values[..., 0] = size * np.sign(values[..., 0]) if values.ndim > 1 else 0.5
        return values

    return small_model(edit)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        ("mlp_0", 1e-9),
        *(
            pytest.param(layer, size, marks=pytest.mark.slow)
            for layer, size in product(["mlp_0", "logits"], [1e-6, 1e-9, 1e-40])
            if (layer, size) != ("mlp_0", 1e-9)
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["int8", "int8-full", "int16x8"])
def test_a_bias_fits_beside_tiny_weights(tmp_path, layer, size, scheme):
    model = with_tiny_weights(layer, size)
    exported = cct_export.export_tflite(
        model, output=tmp_path / "m.tflite", scheme=scheme, parity_samples=64
    )
    assert exported.parity.passed, exported.parity.failures
    assert exported.parity.sqnr_db > 30


@pytest.mark.parametrize("scheme", ["int8-full", "int16x8"])
def test_a_file_that_crashes_the_engine_is_a_conversion_error(tmp_path, scheme):
    zeros = small_model(lambda path, values: 0 * values if values.ndim > 1 else values)
    with pytest.raises(ConversionError, match=rf"s as tflite {scheme}: the file cannot be run"):
        cct_export.export_tflite(
            zeros, output=tmp_path / "m.tflite", scheme=scheme, parity_samples=16
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scheme", ["none", "fp16", "int8"])
def test_a_weight_that_is_not_finite_is_named(tmp_path, value, scheme):
    broken = small_model(lambda path, values: values * value if "mlp_1/kernel" in path else values)
    with pytest.raises(InvalidModel, match=r"its weight block_0/mlp_1/kernel holds NaN or inf"):
        cct_export.export_tflite(
            broken, output=tmp_path / "m.tflite", scheme=scheme, parity_samples=16
        )
    assert list(tmp_path.iterdir()) == []


def test_auto_exports_a_model_of_tiny_weights_in_a_scheme_that_works(tmp_path):
    tiny = small_model(lambda path, values: values * 1e-12)
    exported = cct_export.export_tflite(
        tiny, output=tmp_path / "m.tflite", scheme="auto", parity_samples=64, calibration_samples=16
    )
    assert exported.parity.passed
    json.dumps(exported.to_dict(), allow_nan=False)


def test_a_position_embedding_beyond_float16_stays_float32(tmp_path):
    large = small_model(lambda path, values: values * 1e7 if "position" in path else values)
    exported = cct_export.export_tflite(
        large, output=tmp_path / "m.tflite", scheme="int8-dynamic", parity_samples=64
    )
    assert exported.parity.passed, exported.parity.failures
