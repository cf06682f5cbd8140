"""A training run of seconds: a tiny model on gray images."""

import shutil
import time
from pathlib import Path

import numpy as np

from cct_export.specs import ModelSpec, TrainSpec
from cct_export.specs.progress import no_progress
from cct_export.training.loop import TrainingJob, train

TINY = ModelSpec(
    name="tiny", image_size=8, channels=1, filters=(4, 8), layers=1, heads=1, head_dim=4,
    mlp_units=(8, 8),
)  # fmt: skip


def gray_images(path, count=60, classes=3, seed=0):
    """Saves gray images whose class is their brightness; returns the path as a string."""
    labels = np.arange(count) % classes
    noise = np.random.default_rng(seed).integers(0, 80, (count, 8, 8, 1))
    pixels = (noise + labels[:, None, None, None] * 80).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:30], y_test=labels[:30])
    return str(path)


def train_tiny(
    folder: Path, data, resume=False, progress=no_progress, model=TINY, loggers=(), **recipe
):
    """Trains ``model`` for two epochs."""
    recipe = TrainSpec(data, **{"epochs": 2, "batch": 8, "learning_rate": 3e-3} | recipe)
    return train(TrainingJob(model, recipe, folder, resume, loggers=loggers), progress)


def copying_after_first_epoch(run: Path, copy: Path):
    """Returns a progress callback that copies a run as of its first epoch, when that is saved."""

    def progress(epoch, step, steps, metrics):
        if (epoch, step) != (1, 0):
            return
        deadline = time.monotonic() + 60
        while not (run / "state.npz").exists():
            assert time.monotonic() < deadline, "the first epoch was not saved"
            time.sleep(0.01)
        shutil.copytree(run, copy)

    return progress
