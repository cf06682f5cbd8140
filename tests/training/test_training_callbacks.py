"""Callbacks of a run: NaN check, early stopping, EMA, checkpoints, experiment trackers."""

import shutil
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_run import TINY, gray_images, train_tiny

from cct_export.data import read
from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.model import checkpoint
from cct_export.training.callbacks import TrainingDiverged, check_loggers, should_stop
from cct_export.training.learner import Learner
from cct_export.training.loop import holdout
from cct_export.training.run import RunDirectory

FIXED = replace(TINY, dropout=0.0, stochastic_depth=0.0)
# Everything that has a random state, an optimizer state or weights of its own.
EVERYTHING = {
    "ema": 0.8, "clip_norm": 1.0, "crop": 0.1, "erasing": 0.3, "mixup": 0.2, "cutmix": 0.2,
    "mix_probability": 0.5, "dropout": 0.1, "learning_rate": 0.01, "decay_all": False,
    "warmup": 0.5, "flip": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return gray_images(tmp_path_factory.mktemp("data") / "gray.npz", 96)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, data):
    """A run of one epoch without anything random; do not change it."""
    return _train(tmp_path_factory.mktemp("plain") / "run", data, epochs=1)


def _train(folder, data, **recipe):
    train_tiny(folder, data, model=FIXED, **{"flip": False} | recipe)
    return RunDirectory(folder)


def _validation_accuracy(run, data):
    """Returns the accuracy of best.keras on the held-out images."""
    split = read(data, (8, 8, 1)).train
    held_out, _ = holdout(len(split.labels), run.record().train)
    logits = checkpoint.load(run.best_file)(split.images(held_out).astype(np.float32))
    return (np.asarray(logits).argmax(axis=1) == split.labels[held_out]).mean()


def test_a_loss_that_is_nan_ends_the_run_and_keeps_the_last_good_epoch(
    tmp_path, data, plain, monkeypatch
):
    run = RunDirectory(shutil.copytree(plain.path, tmp_path / "run"))
    files = (run.best_file, run.state_file, run.metrics_file)
    before = [file.read_bytes() for file in files]

    def nan_loss(self, x, y, y_pred, *_, **__):
        return y_pred["logits"][0, 0] * np.nan

    monkeypatch.setattr(Learner, "compute_loss", nan_loss)
    with pytest.raises(TrainingDiverged, match=r"loss became nan in epoch 2, step 1: .*best\.kera"):
        _train(run.path, data, resume=True, epochs=2)
    assert [file.read_bytes() for file in files] == before


def test_an_epoch_that_diverges_in_its_last_step_is_not_saved(
    in_process, data, checkpoint_file, tmp_path
):
    run = RunDirectory(tmp_path / "run")
    ended = in_process(
        "export", "train", "--from", checkpoint_file, "--recipe", "keras-io", "--data", data,
        "--learning-rate", 1e30, "--epochs", 1, "--batch", 96, "-o", run.path,
    )  # fmt: skip
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: the loss became nan in the validation of")
    assert "epoch 1: nothing was saved; start again with a lower learning rate" in ended.err
    assert "Traceback" not in ended.err
    assert {path.name for path in run.path.iterdir()} == {"run.json", ".lock"}
    run.check(resume=False)  # A new run may start there.


def test_early_stopping_ends_a_run_for_good(tmp_path, data, rows):
    recipe = {"epochs": 40, "patience": 2, "learning_rate": 1e-6, "batch": 48}
    run = _train(tmp_path / "run", data, **recipe)
    accuracy = [float(row["val_accuracy"]) for row in rows(run)]
    assert 3 <= len(accuracy) < 40
    assert len(accuracy) - 1 - int(np.argmax(accuracy)) == 2
    state = run.state_file.read_bytes()
    _train(tmp_path / "run", data, resume=True, **recipe)
    assert run.state_file.read_bytes() == state


def test_patience_counts_from_the_best_epoch():
    metrics = [{"val_accuracy": value} for value in (0.1, 0.5, 0.5, 0.4)]
    assert not should_stop(metrics, 3)
    assert should_stop(metrics, 2)
    assert not should_stop(metrics, 0)
    assert not should_stop([], 1)


def test_averaged_weights_are_validated_and_saved(tmp_path, data, plain, rows):
    averaged = _train(tmp_path / "averaged", data, epochs=1, ema=0.9)
    losses = [[row["loss"] for row in rows(run)] for run in (plain, averaged)]
    assert losses[0] == losses[1], "averaging does not change training"
    for run in (plain, averaged):
        best = max(float(row["val_accuracy"]) for row in rows(run))
        assert _validation_accuracy(run, data) == pytest.approx(best)
    weights = [checkpoint.load(run.best_file).get_weights() for run in (plain, averaged)]
    assert not all(map(np.array_equal, *weights))


@pytest.mark.parametrize(
    "optimizer",
    ["muon", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "sgd"))],
)
def test_a_resumed_run_has_the_same_state_bit_by_bit(
    tmp_path, data, resumed, same_state, rows, optimizer
):
    whole, broken = resumed(tmp_path, data, epochs=2, optimizer=optimizer, **EVERYTHING)
    same_state(broken, whole)
    assert float(rows(whole)[-1]["loss"]) < float(rows(whole)[0]["loss"])


@pytest.mark.slow
def test_a_resumed_run_with_rand_augment_has_the_same_state(tmp_path, resumed, same_state):
    # RandAugment needs three channels.
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    labels = np.arange(60) % 3
    path = tmp_path / "colors.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    model = replace(TINY, channels=3)
    same_state(*resumed(tmp_path, str(path), model=model, rand_augment=2, mixup=0.2))


def test_half_precision_keeps_float32_weights(tmp_path, data, plain, rows):
    run = _train(tmp_path / "run", data, precision="mixed_bfloat16", epochs=1)
    weights = checkpoint.load(run.best_file).get_weights()
    assert {weight.dtype for weight in weights} == {np.dtype(np.float32)}
    assert keras.config.dtype_policy().name == "float32"
    losses = [float(rows(directory)[-1]["loss"]) for directory in (run, plain)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_resumed_run_in_half_precision_has_the_same_state(
    tmp_path, data, resumed, same_state, precision
):
    # float16 scales its loss; the scale is part of the state.
    same_state(*resumed(tmp_path, data, model=FIXED, precision=precision, ema=0.8))


def test_tensorboard_continues_with_the_epochs_of_a_resumed_run(copied, finished):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_tiny(copied.path, finished.data, resume=True, epochs=3, seed=5, loggers=("tensorboard",))
    folder = copied.path / "tensorboard" / "validation"
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Tensors("epoch_loss")] == [2]


@pytest.mark.slow
def test_weights_and_biases_continues_under_the_same_id(tmp_path, data, resumed, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run, broken = resumed(tmp_path, data, batch=48, loggers=("wandb",))
    folders = sorted((broken.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    identity = (run.path / "wandb" / "id.txt").read_text()
    assert all(folder.name.endswith(identity) for folder in folders)


def test_an_unknown_logger_is_refused_and_no_directory_is_made(tmp_path, data):
    with pytest.raises(
        InvalidRequest, match="no log is called 'csv': choose from tensorboard, wandb"
    ):
        train_tiny(tmp_path / "run", data, loggers=("csv",))
    assert not (tmp_path / "run").exists()


def test_a_logger_without_its_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependency, match=r"pip install 'cct-export\[wandb\]'"):
        check_loggers(["tensorboard", "wandb"])
