"""The logs that a run can write besides its own files."""

import numpy as np
import pytest

from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training import logs
from cct_export.training.loop import train

TINY = ModelSpec(
    name="tiny", image_size=8, channels=1, filters=(4, 8), layers=1, heads=1, head_dim=4,
    mlp_units=(8, 8),
)  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """Twenty random images of two classes, as an ``.npz``."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "x.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return str(tmp_path / "x.npz")


def test_both_logs_have_every_epoch_and_a_resumed_run_goes_on_in_them(tmp_path, data, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    for epochs, resume in ((1, False), (2, True)):
        recipe = TrainSpec(data, epochs=epochs, batch=8)
        train(TINY, recipe, run, resume, lambda *_: None, logs=("tensorboard", "wandb"))
    events = EventAccumulator(str(run / "tensorboard" / "validation")).Reload()
    steps = [event.step for event in events.Tensors("epoch_loss")]
    assert steps == [0, 1]
    offline = sorted((run / "wandb").glob("offline-run-*"))
    assert len(offline) == 2
    identity = (run / "wandb" / "id.txt").read_text()
    assert all(folder.name.endswith(identity) for folder in offline)


def test_a_log_that_there_is_not_is_refused_and_nothing_is_made(tmp_path, data):
    with pytest.raises(InvalidRequest, match="no log is called 'csv': there is tensorboard, wandb"):
        train(TINY, TrainSpec(data), tmp_path / "run", False, lambda *_: None, logs=("csv",))
    assert not (tmp_path / "run").exists()


def test_a_log_without_its_library_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependency, match=r"pip install 'cct-export\[wandb\]'"):
        logs.check(["tensorboard", "wandb"])
