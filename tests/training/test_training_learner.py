"""The compiled learner: XLA, learning rate schedule and weight decay."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny_run import TINY

from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training import learner
from cct_export.training.optimizer import learning_rate
from cct_export.training.recipes import RECIPES, resolve

SCRIPT = """
import sys
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec
from cct_export.training.learner import compiled
from cct_export.training.recipes import resolve

tiny = ModelSpec(image_size=8, filters=(4, 8), layers=1, heads=1, head_dim=4, mlp_units=(8, 8))
learner = compiled(CCT(tiny), resolve(sys.argv[1], "x"), 3)
print("compiled" if learner.jit_compile else "not compiled")
"""


def test_on_tensorflow_a_step_with_geometric_augmentation_is_not_compiled():
    assert not learner.compiled(CCT(TINY), resolve("short", "x"), 3).jit_compile


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", "short"])
def test_on_jax_a_step_is_compiled_with_any_augmentation(recipe):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, recipe],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )
    assert done.stdout.strip() == "compiled", done.stderr


def test_the_learning_rate_warms_up_and_decays_along_a_cosine():
    recipe = TrainSpec(
        "x", epochs=11, schedule="cosine", warmup=1.0, final_rate=0.1, learning_rate=0.01
    )
    schedule = learning_rate(recipe, steps=10)
    rates = [float(schedule(step)) for step in range(111)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(0.01)
    assert np.diff(rates[:11]) == pytest.approx(0.001)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[60] == pytest.approx(0.0055)
    assert rates[110] == pytest.approx(0.001)
    constant = learning_rate(replace(recipe, schedule="constant"), steps=10)
    assert float(constant(110)) == pytest.approx(0.01)
    recipe = replace(recipe, schedule="constant", warmup=0.0)
    assert learning_rate(recipe, steps=10) == 0.01


@pytest.mark.parametrize(
    ("epochs", "warmup", "peak_step"), [(1, 5.0, 10), (2, 1.0, 20), (20, 5.0, 200), (20, 2.0, 200)]
)
def test_the_warm_up_takes_a_tenth_of_the_steps_at_most(epochs, warmup, peak_step):
    recipe = TrainSpec("x", epochs=epochs, schedule="cosine", warmup=warmup)
    schedule = learning_rate(recipe, steps=100)
    rates = [float(schedule(step)) for step in range(100 * epochs)]
    assert np.argmax(rates) == peak_step
    assert rates[peak_step] == pytest.approx(recipe.learning_rate)


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_loses_part_of_its_warm_up_at_its_own_number_of_epochs(name):
    recipe = resolve(name, "x")
    assert recipe.warmup_epochs == recipe.warmup


def test_a_shortened_warm_up_is_logged(caplog):
    with caplog.at_level("INFO", logger="cct_export"):
        learner.check(TrainSpec("x", epochs=1, warmup=5.0))
        learner.check(TrainSpec("x", epochs=50, warmup=5.0))
    assert caplog.messages == ["warm-up of 5 epochs shortened to 0.1: a tenth of the run"]


@pytest.mark.parametrize("decay_all", [True, False])
def test_normalizations_are_decayed_with_decay_all_only(decay_all):
    # learning_rate * weight_decay: one step takes half of what it decays.
    recipe = TrainSpec("x", learning_rate=1e-4, weight_decay=5e3, decay_all=decay_all)
    model = learner.compiled(CCT(TINY), recipe, 1)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    targets = np.eye(10, dtype=np.float32)[:8]
    model.run_eagerly = True
    model.train_on_batch({"image": images, "target": targets})
    gamma = float(np.abs(model.cct.get_layer("norm").gamma).max())
    assert gamma == pytest.approx(0.5 if decay_all else 1, abs=0.01)
