"""Fake quantization: what it rounds, its gradients, and that nothing is left of it when off."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cct_export.model.cct import CCT
from cct_export.model.fake_quantize import fake_quantization, fake_quantized, is_on
from cct_export.specs import ModelSpec

SPEC = ModelSpec(
    name="tiny", image_size=8, channels=1, filters=(4, 8), layers=2, heads=2, head_dim=4,
    mlp_units=(8, 8), classes=5, dropout=0.0, stochastic_depth=0.0,
)  # fmt: skip
SPECS = {
    "keras": SPEC,
    "keras with dropout": replace(SPEC, dropout=0.1),
    "paper": replace(SPEC, block="paper", padding=1),
}
VALUES = arrays(np.float32, (40,), elements=st.floats(-1000, 1000, width=32, allow_subnormal=False))


def _rounded(x):
    with fake_quantization(True):
        return keras.ops.convert_to_numpy(fake_quantized(keras.ops.convert_to_tensor(x)))


def _images(count=6):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.float32)


@pytest.fixture(params=SPECS)
def model(request):
    keras.utils.set_random_seed(3)
    return CCT(SPECS[request.param])


def test_off_by_default_it_returns_the_tensor_itself():
    x = keras.ops.ones((3,))
    assert not is_on()
    assert fake_quantized(x) is x
    with fake_quantization(False):
        assert fake_quantized(x) is x


def test_it_is_off_again_behind_the_block_and_after_an_error():
    with pytest.raises(KeyError), fake_quantization(True):
        with fake_quantization(False):
            assert not is_on()
        assert is_on()
        raise KeyError
    assert not is_on()


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_values_move_by_half_a_step_at_most_and_0_stays(values):
    values[0] = 0
    rounded = _rounded(values)
    step = (values.max() - values.min()) / 254
    # What is smaller than 1e-30 counts as 0.
    assert np.abs(rounded - values).max() <= max(step * 0.5001, 1e-30)
    assert rounded[0] == 0


def test_there_are_256_different_values_at_most():
    values = np.random.default_rng(0).normal(size=10**5).astype(np.float32)
    step = (values.max() - values.min()) / 254
    multiples = _rounded(values) / step
    assert np.abs(multiples - np.round(multiples)).max() < 1e-4
    assert 200 < len(np.unique(np.round(multiples))) <= 256


@pytest.mark.parametrize("values", [np.zeros(4), np.full(4, 3.0), np.full(4, -3.0)])
def test_a_tensor_of_one_value_stays_as_it_is(values):
    assert _rounded(values.astype(np.float32)) == pytest.approx(values, rel=1e-6)


def test_bfloat16_is_rounded_in_float32():
    values = keras.ops.cast(np.linspace(-1, 3, 999), "bfloat16")
    with fake_quantization(True):
        rounded = fake_quantized(values)
        exact = fake_quantized(keras.ops.cast(values, "float32"))
    assert keras.backend.standardize_dtype(rounded.dtype) == "bfloat16"
    assert np.array_equal(rounded, keras.ops.cast(exact, "bfloat16"))


def test_gradients_reach_the_values_and_both_ends_of_the_range():
    import tensorflow as tf

    generator = np.random.default_rng(1)
    values, weights = generator.normal(size=(2, 50)).astype(np.float32)
    x = tf.Variable(values)
    with tf.GradientTape() as tape, fake_quantization(True):
        total = keras.ops.sum(weights * fake_quantized(x))
    multiples = values.astype(np.float64) * 254 / np.ptp(values)
    of_scale = np.sum(weights * (np.round(multiples) - multiples))
    expected = weights.astype(np.float64)
    expected[values.argmax()] += of_scale / 254
    expected[values.argmin()] -= of_scale / 254
    assert abs(of_scale) > 0.1
    assert np.asarray(tape.gradient(total, x)) == pytest.approx(expected, abs=1e-4)


def test_a_model_that_was_rounded_computes_as_before(model):
    before = model.predict(_images(), verbose=0), np.asarray(model(_images(), training=False))
    with fake_quantization(True):
        rounded = np.asarray(model(_images(), training=False))
    assert np.array_equal(before[0], model.predict(_images(), verbose=0))
    assert np.array_equal(before[1], np.asarray(model(_images(), training=False)))
    error = np.abs(rounded - before[1]).max()
    assert 0 < error < 0.1 * np.ptp(before[1])


@pytest.mark.parametrize("training", [False, True])
def test_what_layers_give_has_few_different_values(model, training):
    tokens = np.random.default_rng(2).normal(size=(64, 4, 8)).astype(np.float32)
    layers = [model.get_layer(n) for n in ("position_embedding", "block_0", "block_1", "pooling")]
    for layer in [model.get_layer("tokenizer"), *layers]:
        x = _images(64) if layer.name == "tokenizer" else tokens
        options = {"training": training} if layer.name.startswith("block") else {}
        plain = np.unique(np.asarray(layer(x, **options)))
        with fake_quantization(True):
            values = np.asarray(layer(x, **options))
        step = (max(values.max(), 0) - min(values.min(), 0)) / 254
        assert len(np.unique(np.round(values / step))) <= 256 < len(plain), layer.name


@pytest.mark.parametrize("name", ["keras", "paper"])
def test_rounding_is_the_same_in_training_and_at_inference(name):
    """Keras' own attention computes at inference, another product while training."""
    keras.utils.set_random_seed(3)
    model = CCT(SPECS[name])
    with fake_quantization(True):
        outputs = [np.asarray(model(_images(), training=mode)) for mode in (False, True)]
    step = np.ptp(outputs[0]) / 254
    assert np.abs(outputs[0] - outputs[1]).max() < 4 * step


def test_gradients_of_the_weights_are_nearly_those_without_rounding(model):
    import tensorflow as tf

    variables = [weight.value for weight in model.trainable_weights]

    def gradients(on):
        with tf.GradientTape() as tape, fake_quantization(on):
            loss = keras.ops.sum(model(_images()) * np.arange(5, dtype=np.float32))
        return np.concatenate([np.ravel(each) for each in tape.gradient(loss, variables)])

    plain, rounded = gradients(False), gradients(True)
    assert np.linalg.norm(rounded - plain) < 0.2 * np.linalg.norm(plain)
