"""What a run keeps, averages, and when it stops by itself."""

import csv

import keras
import numpy as np
import pytest

from cct_export.model import checkpoint
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training.keeping import Diverged, is_over
from cct_export.training.loop import train
from cct_export.training.run import RunDirectory

TINY = ModelSpec(
    name="tiny", image_size=8, channels=1, filters=(4, 8), layers=1, heads=1, head_dim=4,
    mlp_units=(8, 8), dropout=0.0, stochastic_depth=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Grey images whose class is their brightness, as an ``.npz``."""
    path = tmp_path_factory.mktemp("data") / "grey.npz"
    labels = np.arange(96) % 3
    noise = np.random.default_rng(0).integers(0, 80, (96, 8, 8, 1))
    pixels = (noise + labels[:, None, None, None] * 80).astype(np.uint8)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:30], y_test=labels[:30])
    return str(path)


def _train(folder, data, resume=False, **recipe):
    recipe = {"epochs": 2, "batch": 8, "learning_rate": 3e-3, "flip": False} | recipe
    train(TINY, TrainSpec(data, **recipe), folder, resume, lambda *_: None)
    return RunDirectory(folder)


def _rows(run):
    with run.metrics_file.open(newline="") as file:
        return list(csv.DictReader(file))


def _accuracy_of_best(run, data):
    """Returns that of best.keras on the images that the run held out."""
    from cct_export.data import read
    from cct_export.training.loop import _holdout

    record = run.record()
    split = read(data, (8, 8, 1)).train
    held_out, _ = _holdout(split, TrainSpec(**record["train"]))
    logits = checkpoint.load(run.best_file)(split.images(held_out).astype(np.float32))
    return (np.asarray(logits).argmax(axis=1) == split.labels[held_out]).mean()


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_epoch(
    tmp_path, data, monkeypatch
):
    # The rate is part of the state where it is constant.
    run = _train(tmp_path / "run", data, warmup=0.1)
    files = (run.best_file, run.state_file, run.metrics_file)
    before = [file.read_bytes() for file in files]
    from cct_export.training import learner

    huge = keras.optimizers.schedules.CosineDecay(1e30, 1, alpha=1.0)
    monkeypatch.setattr(learner, "_rate", lambda *_: huge)
    with pytest.raises(Diverged, match=r"the loss became (nan|inf) in epoch 3, step \d+: .*"):
        _train(tmp_path / "run", data, resume=True, epochs=4, warmup=0.1)
    assert [file.read_bytes() for file in files] == before


def test_a_loss_that_is_no_number_from_the_start_says_that_nothing_was_kept(in_process, tmp_path):
    ended = in_process(
        "export", "train", "--data", "digits", "--learning-rate", 1e30, "--epochs", 1,
        "--model", "cct_2_3x2_32", "-o", tmp_path / "run",
    )  # fmt: skip
    assert ended.code == 1
    assert "nothing was kept; begin again with a lower learning rate" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run" / "best.keras").exists()


def test_what_the_last_step_of_an_epoch_ruins_is_not_kept(tmp_path, data):
    run = tmp_path / "run"
    with pytest.raises(Diverged, match="in the validation of epoch 1: nothing was kept; begin"):
        _train(run, data, batch=96, epochs=1, learning_rate=1e30)
    assert {path.name for path in run.iterdir()} == {"run.json", ".lock"}
    # And it can be begun again there, as it was told.
    assert _train(run, data, epochs=1).best_file.exists()


def test_a_run_stops_when_nothing_gets_better_and_stays_stopped(tmp_path, data):
    run = _train(tmp_path / "run", data, epochs=40, patience=2, learning_rate=1e-6)
    rows = _rows(run)
    accuracy = [float(row["val_accuracy"]) for row in rows]
    assert 3 <= len(rows) < 40
    assert len(rows) - 1 - int(np.argmax(accuracy)) == 2
    state = run.state_file.read_bytes()
    again = _train(tmp_path / "run", data, epochs=40, patience=2, learning_rate=1e-6, resume=True)
    assert again.state_file.read_bytes() == state


def test_patience_counts_from_the_best_epoch():
    history = [{"val_accuracy": value} for value in (0.1, 0.5, 0.5, 0.4)]
    assert not is_over(history, 3)
    assert is_over(history, 2)
    assert not is_over(history, 0)
    assert not is_over([], 1)


def test_averaged_weights_are_what_is_validated_and_kept(tmp_path, data):
    plain = _train(tmp_path / "plain", data)
    averaged = _train(tmp_path / "averaged", data, ema=0.9)
    columns = [[row["loss"] for row in _rows(run)] for run in (plain, averaged)]
    assert columns[0] == columns[1], "averaging changes nothing of what is learned"
    for run in (plain, averaged):
        best = max(float(row["val_accuracy"]) for row in _rows(run))
        assert _accuracy_of_best(run, data) == pytest.approx(best)
    one, other = (checkpoint.load(run.best_file).get_weights() for run in (plain, averaged))
    assert not all(map(np.array_equal, one, other))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_every_optimizer_learns_and_is_resumed_bit_by_bit(tmp_path, data, optimizer):
    knobs = {
        "optimizer": optimizer, "ema": 0.8, "clip_norm": 1.0, "crop": 0.1, "erasing": 0.3,
        "mixup": 0.2, "cutmix": 0.2, "mix_probability": 0.5, "dropout": 0.1,
        "learning_rate": 0.01, "decay_all": False, "warmup": 0.5, "flip": True,
    }  # fmt: skip
    whole = _train(tmp_path / "whole", data, epochs=3, **knobs)
    broken = _train(tmp_path / "broken", data, epochs=1, **knobs)
    broken = _train(tmp_path / "broken", data, epochs=3, resume=True, **knobs)
    assert broken.metrics_file.read_text() == whole.metrics_file.read_text()
    with np.load(broken.state_file) as one, np.load(whole.state_file) as other:
        assert sorted(one) == sorted(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)
    losses = [float(row["loss"]) for row in _rows(whole)]
    assert losses[-1] < losses[0]


def test_the_rate_rises_falls_along_a_cosine_and_does_not_let_epochs_be_added(tmp_path, data):
    knobs = {"schedule": "cosine", "warmup": 1.0, "final_rate": 0.1, "learning_rate": 0.01}
    run = _train(tmp_path / "run", data, epochs=4, **knobs)
    rates = [float(row["learning_rate"]) for row in _rows(run)]
    assert rates[0] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.001)
    from cct_export.errors import CCTExportError

    with pytest.raises(CCTExportError, match="was begun with train epochs 4, not 5"):
        _train(tmp_path / "run", data, epochs=5, resume=True, **knobs)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_half_precision_keeps_float32_weights(tmp_path, data, precision):
    run = _train(tmp_path / "run", data, precision=precision, ema=0.8)
    assert {weight.dtype for weight in checkpoint.load(run.best_file).get_weights()} == {
        np.dtype(np.float32)
    }
    assert keras.config.dtype_policy().name == "float32"
    exact = _train(tmp_path / "exact", data, ema=0.8)
    losses = [float(_rows(one)[-1]["loss"]) for one in (run, exact)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    # float16 scales its loss: the scale is part of what a run resumes from.
    broken = _train(tmp_path / "broken", data, precision=precision, ema=0.8, epochs=1)
    broken = _train(tmp_path / "broken", data, precision=precision, ema=0.8, resume=True)
    assert broken.metrics_file.read_text() == run.metrics_file.read_text()


def test_what_is_small_is_not_decayed_unless_all_is(tmp_path, data):
    kept = {}
    for all_of_them in (True, False):
        # So strong a decay that what it reaches is gone at once.
        run = _train(
            tmp_path / str(all_of_them), data, epochs=1, learning_rate=1e-4, weight_decay=5e3,
            decay_all=all_of_them,
        )  # fmt: skip
        model = checkpoint.load(run.best_file)
        kept[all_of_them] = float(np.abs(model.get_layer("norm").gamma).max())
    assert kept[False] == pytest.approx(1, abs=0.05)
    assert kept[True] < 0.5
