"""Plans whose quantized file misses parity: the worst steps stay in float, until it passes."""

import keras
import numpy as np
import pytest
from cases.other_classifiers import small
from keras import layers

import cct_export
from cct_export.export import tuning


def narrow(activation):
    """A head with vast weights for a feature that is always 0, beside which the others vanish."""
    model = small(layers.Flatten(), head=[layers.Dense(5, activation=activation)])
    _, bias = model.layers[2].get_weights()
    model.layers[2].bias.assign(np.where(np.arange(8) == 0, -1e3, bias))
    _with_vast_weights(model.layers[-1], 8)
    return model


def _with_vast_weights(head, features):
    kernel, bias = head.get_weights()
    kernel[::features] = 1e4
    head.set_weights([kernel, bias])


def export(model, format, path, scheme):
    return getattr(cct_export, f"export_{format}")(
        model, output=path, scheme=scheme, rounding="nearest", parity_samples=64,
        calibration_samples=32,
    )  # fmt: skip


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(("scheme", "activation"), [("int4-weight", None), ("int8", "softmax")])
def test_the_worst_steps_stay_in_float_and_the_output_says_so(
    tmp_path, caplog, format, scheme, activation
):
    caplog.set_level("INFO", "cct_export")
    exported = export(narrow(activation), format, tmp_path / f"m.{format}", scheme)
    assert exported.parity.passed, exported.parity.failures
    kept = exported.artifact.contract.quantization.kept_float
    assert kept
    assert f"{', '.join(kept)} kept in float" in caplog.text
    assert exported.bound is None


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_file_that_passes_keeps_nothing_in_float(tmp_path, monkeypatch, format):
    def never(*arguments):
        raise AssertionError("no step has to stay in float")

    monkeypatch.setattr(tuning, "step_errors", never)
    exported = export(small(), format, tmp_path / f"m.{format}", "int8")
    assert exported.parity.passed
    assert exported.artifact.contract.quantization.kept_float == ()


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_the_steps_of_a_single_output_have_finite_errors(activation):
    model = small(head=[layers.Dense(1, activation=activation)])
    report = cct_export.quantize_report(model, scheme="int8", sensitivity=True)
    assert np.isfinite(report.sqnr_db)
    assert report.steps
    assert all(np.isfinite(step.alone_db) for step in report.steps)


def with_two_heads():
    """A traced model, whose first head is hard to quantize and the second one's values vast."""
    inner = narrow(None)
    x = layers.Flatten()(layers.Conv2D(4, 3, strides=2)(inner.input))
    second = layers.Dense(3, name="second")
    model = keras.Model(inner.input, [inner.output, second(x)])
    second.set_weights([1000 * weight for weight in second.get_weights()])
    return model


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_operators_stay_in_float_until_every_head_passes(tmp_path, format):
    exported = export(with_two_heads(), format, tmp_path / f"m.{format}", "int4-weight")
    assert exported.parity.passed, exported.parity.failures
    assert exported.artifact.contract.quantization.kept_float


def of_one_layer(build):
    """A model whose only weights vanish beside vast ones."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    head = layers.Dense(5)
    without_red = layers.ReLU()(layers.Rescaling(1 / 255, [-2, 0, 0])(image))
    logits = head(layers.Flatten()(without_red))
    _with_vast_weights(head, 3)
    return keras.Model(image, build(logits))


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize(
    "build",
    [lambda x: x, layers.LeakyReLU()],
    ids=["lowered", "traced"],
)
def test_a_file_without_integers_is_no_way_to_pass(tmp_path, format, build):
    exported = export(of_one_layer(build), format, tmp_path / f"m.{format}", "int4-weight")
    assert not exported.parity.passed
    assert exported.artifact.contract.quantization.kept_float == ()
    assert exported.artifact.path.name.endswith(".rejected")
