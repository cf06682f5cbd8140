"""Fixtures: small real models on real data (scikit-learn's digits)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SMALL = {
    "name": "small",
    "filters": (16, 32),
    "layers": 2,
    "heads": 2,
    "head_dim": 32,
    "mlp_units": (32, 32),
}


@pytest.fixture(scope="session")
def small_spec():
    """A CCT of 20,000 parameters that learns the digits in seconds."""
    from cct_export.specs import ModelSpec

    return ModelSpec(**SMALL)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, small_spec) -> Path:
    """A finished run directory: the small CCT trained on digits, well above chance."""
    from cct_export.specs import TrainSpec
    from cct_export.training.loop import train

    folder = tmp_path_factory.mktemp("digits") / "run"
    recipe = TrainSpec(data="digits", epochs=12, batch=64, learning_rate=3e-3)
    trained = train(small_spec, recipe, folder, resume=False, progress=lambda *_: None)
    assert trained.top1 > 0.7
    return folder


@pytest.fixture(scope="session")
def digits_model(digits_run) -> Path:
    """The ``.keras`` file of ``digits_run``."""
    return digits_run / "best.keras"


@pytest.fixture
def cct_export(tmp_path):
    """Runs ``cct-export`` in a process of its own in ``tmp_path``; returns the process."""
    return _program("export", tmp_path)


@pytest.fixture
def cct_bench(tmp_path):
    """Runs ``cct-bench`` in a process of its own in ``tmp_path``; returns the process."""
    return _program("bench", tmp_path)


def _program(name, folder):
    code = f"from cct_export.commands.program import {name}_main; {name}_main()"

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
