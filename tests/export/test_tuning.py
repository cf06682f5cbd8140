"""Plans whose quantized file misses parity: the worst steps stay in float, until it passes."""

import keras
import numpy as np
import pytest
from cases.other_classifiers import small
from keras import layers

import cct_export
from cct_export.export import tuning


def narrow(activation):
    """A head with few large weights among many small ones, which four or eight bits cannot tell."""
    model = small(layers.Flatten(), head=[layers.Dense(5, activation=activation)])
    kernel, bias = model.layers[-1].get_weights()
    random = np.random.default_rng(0)
    outliers = random.choice([1, 400], kernel.shape, p=[0.99, 0.01])
    model.layers[-1].set_weights([kernel * outliers, bias])
    return model


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
