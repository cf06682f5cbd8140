"""Exported models of the paper's kind: one trained a little, and one with random weights."""

import functools

import numpy as np
import pytest
from emitted import run_onnx
from plans import random_model

import cct_export
from cct_export.model.presets import CIFAR
from cct_export.quantize.schemes import BY_FORMAT
from cct_export.records import weights
from cct_export.specs import SUFFIXES, ModelSpec, TrainSpec

MEAN, STD = CIFAR
SPEC = ModelSpec(
    name="small_paper", block="paper", filters=(16, 32), padding=1, layers=2, heads=2,
    head_dim=16, mlp_units=(64, 32), mean=MEAN, std=STD, stochastic_depth_mode="batch",
)  # fmt: skip
CASES = [(format, scheme) for format, schemes in BY_FORMAT.items() for scheme in schemes]
EXPORTS = {
    "tflite": cct_export.export_tflite,
    "onnx": cct_export.export_onnx,
    "ncnn": cct_export.export_ncnn,
}


@pytest.fixture(scope="module")
def model():
    """A small model of the paper with random weights."""
    return random_model(SPEC, 0)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Exports ``model`` in float32, once per format."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(format):
        return EXPORTS[format](model, output=folder / f"m{SUFFIXES[format]}", parity_samples=16)

    return export


@pytest.mark.slow
@pytest.mark.parametrize(("format", "scheme"), CASES)
def test_a_trained_model_passes_parity_in_every_scheme(once, tmp_path, format, scheme):
    def train(folder):
        recipe = TrainSpec(data="digits", epochs=12, batch=64, learning_rate=3e-3)
        assert cct_export.train(folder / "run", recipe=recipe, model=SPEC).top1 > 0.7

    run = once("paper", train) / "run"
    exported = EXPORTS[format](
        run,
        output=tmp_path / f"m{SUFFIXES[format]}",
        scheme=scheme,
        data="digits",
        parity_samples=360,
    )
    assert exported.parity.passed, exported.parity.failures
    assert exported.parity.decided > 250
    path = exported.artifact.path
    files = filter(None, (path, weights.path_of(path)))
    assert sum(file.stat().st_size for file in files) == exported.artifact.size_bytes


@pytest.mark.parametrize("format", EXPORTS)
def test_a_model_with_random_weights_passes_parity(exported, format):
    assert exported(format).parity.passed
    contract = exported(format).artifact.contract
    assert (contract.input.range, contract.input.dtype) == ((0, 255), "float32")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_attention_has_one_product_for_query_key_and_value(exported, format):
    operators = cct_export.inspect(exported(format).artifact.path).operators
    macs = [operator.macs for operator in operators]
    assert macs.count(64 * 32 * (3 * 32)) == 2, "64 tokens of width 32, once per block"


def test_an_onnx_file_takes_any_number_of_images(exported, model, digit_images):
    artifact = exported("onnx").artifact
    assert artifact.contract.input.shape == (None, 32, 32, 3)
    images = digit_images[0][:33]
    expected = np.asarray(model(images.astype(np.float32), training=False))
    for size in (1, 2, 33):
        logits = run_onnx(artifact.path, images[:size], batched=True)
        assert logits.shape == (size, 10)
        np.testing.assert_allclose(logits, expected[:size], atol=2e-4)
