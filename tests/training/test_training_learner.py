"""A model that is ready to learn: whether its step is compiled."""

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    ("backend", "recipe", "said"),
    [
        ("jax", "paper", "compiled"),
        ("jax", "short", "compiled"),
        ("tensorflow", "short", "not compiled"),
    ],
)
def test_on_jax_the_step_is_compiled_whatever_changes_the_images(backend, recipe, said):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, recipe],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": backend},
    )
    assert done.stdout.strip() == said, done.stderr
