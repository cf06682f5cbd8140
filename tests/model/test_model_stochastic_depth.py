"""The three modes of stochastic depth: what is dropped, how often, and what is computed."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from cct_export.model.blocks import StochasticDepth
from cct_export.model.cct import CCT
from cct_export.specs import STOCHASTIC_DEPTH_MODES, ModelSpec

RATE = 0.3
TINY = ModelSpec(
    name="tiny", image_size=8, filters=(4, 8), layers=2, heads=2, head_dim=4, mlp_units=(8, 8),
    padding=1, stochastic_depth=0.9, stochastic_depth_mode="batch",
)  # fmt: skip
# Kept branches are divided by the probability of keeping, or not.
SCALES = {"sample": 1 - RATE, "sample-unscaled": 1.0, "batch": 1 - RATE}
BLOCKS = {"keras": TINY, "paper": ModelSpec(**TINY.to_dict() | {"block": "paper"})}


def _draws(mode, samples, times):
    """Returns the values of a branch of ones after dropping, ``(times, samples)``."""
    keras.utils.set_random_seed(1)
    layer = StochasticDepth(RATE, mode)
    branch = np.ones((samples, 2, 3), np.float32)
    outputs = np.stack([np.asarray(layer(branch, training=True)) for _ in range(times)])
    assert (outputs == outputs[:, :, :1, :1]).all(), "a branch is dropped whole"
    return outputs[:, :, 0, 0]


@pytest.mark.parametrize("mode", STOCHASTIC_DEPTH_MODES)
def test_a_branch_is_dropped_as_often_as_the_rate_says(mode):
    draws = _draws(mode, 1 if mode == "batch" else 500, 1_000 if mode == "batch" else 4)
    deviation = np.sqrt(RATE * (1 - RATE) / draws.size)
    assert abs((draws == 0).mean() - RATE) < 4 * deviation
    assert np.unique(draws) == pytest.approx([0, 1 / SCALES[mode]])
    expectation = (1 - RATE) / SCALES[mode]
    assert abs(draws.mean() - expectation) < 4 * deviation / SCALES[mode]


@pytest.mark.parametrize("mode", ["sample", "sample-unscaled"])
def test_samples_are_dropped_independently(mode):
    for draw in _draws(mode, 200, 3):
        assert 0 < (draw == 0).sum() < 200


def test_a_batch_is_dropped_as_a_whole():
    draws = _draws("batch", 50, 40)
    assert (draws == draws[:, :1]).all()
    assert 0 < (draws[:, 0] == 0).sum() < 40


@pytest.mark.parametrize("mode", STOCHASTIC_DEPTH_MODES)
@pytest.mark.parametrize("training", [False, None])
def test_at_inference_nothing_is_dropped_or_scaled(mode, training):
    layer = StochasticDepth(0.9, mode)
    x, branch = np.ones((2, 20, 3, 4), np.float32)
    assert np.array_equal(layer(branch, training=training), branch)
    added = layer.residual(x, lambda x: 3 * x, training)
    assert np.array_equal(added, 4 * x)


@pytest.mark.parametrize("mode", STOCHASTIC_DEPTH_MODES)
def test_a_residual_is_the_input_or_the_sum(mode):
    keras.utils.set_random_seed(2)
    layer = StochasticDepth(RATE, mode)
    x = np.ones((50, 2, 2), np.float32)
    values = {
        round(float(value), 5)
        for _ in range(30)
        for value in np.unique(
            layer.residual(keras.ops.convert_to_tensor(x), lambda x: 2 * x, True)
        )
    }
    assert values == {1.0, round(1 + 2 / SCALES[mode], 5)}


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode must be one of .*'batch'.*, not 'sometimes'"):
        StochasticDepth(0.1, "sometimes")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_dropped_batch_is_not_computed(compiled):
    import tensorflow as tf

    keras.utils.set_random_seed(3)
    layer, runs = StochasticDepth(0.5, "batch"), []

    def branch(x):
        with tf.control_dependencies([tf.py_function(lambda: runs.append(1), [], [])]):
            return 2 * tf.identity(x)

    def step(x):
        return layer.residual(x, branch, True)

    step = tf.function(step) if compiled else step
    x = tf.ones((3, 2, 2))
    kept = sum(float(step(x)[0, 0, 0]) > 1 for _ in range(60))
    assert 0 < kept < 60
    assert len(runs) == kept

    layer.mode = "sample"
    runs.clear()
    for _ in range(10):
        layer.residual(x, branch, True)
    assert len(runs) == 10, "the counter counts what is computed"


@pytest.mark.parametrize("block", BLOCKS)
def test_a_dropped_block_does_not_affect_the_output(block):
    """NaN weights would make every output NaN that they are used for."""
    keras.utils.set_random_seed(4)
    model = CCT(BLOCKS[block])
    layer = model.get_layer("block_1")
    layer.mlp[0].kernel.assign(np.full(layer.mlp[0].kernel.shape, np.nan))
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    finite = [bool(np.isfinite(model(images, training=True)).all()) for _ in range(40)]
    assert 25 < sum(finite) < 40
    assert np.isnan(model(images, training=False)).all()


FIT = """
import os, sys, keras, numpy as np
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec
labels = np.arange(64) % 2
noise = np.random.default_rng(0).uniform(0, 100, (64, 8, 8, 3))
images = (noise + 150 * labels[:, None, None, None]).astype("float32")
jit = {"off": False, "auto": "auto"}[sys.argv[1]]
for block in ("keras", "paper"):
    keras.utils.set_random_seed(0)
    spec = ModelSpec(
        image_size=8, filters=(4, 8), layers=2, heads=2, head_dim=4, mlp_units=(8, 8), classes=2,
        padding=1, stochastic_depth=0.5, stochastic_depth_mode="batch", block=block,
    )
    model = CCT(spec)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss, jit_compile=jit)
    history = model.fit(images, np.eye(2)[labels], epochs=12, batch_size=16, verbose=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all() and min(losses[-3:]) < 0.8 * losses[0], (block, losses)
print(keras.backend.backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "jit"), [("tensorflow", "off"), ("tensorflow", "auto"), ("jax", "auto")]
)
def test_dropping_batches_trains_with_and_without_compilation_and_on_jax(backend, jit):
    done = subprocess.run(
        [sys.executable, "-c", FIT, jit],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == backend
