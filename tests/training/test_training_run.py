"""A training run: its files, and what it refuses before it begins."""

import csv
import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_run import TINY, grey_images, train_tiny

from cct_export.errors import (
    CCTExportError,
    InvalidData,
    InvalidModel,
    InvalidRequest,
    OutputError,
)
from cct_export.model import checkpoint
from cct_export.specs import TrainSpec
from cct_export.training.loop import train
from cct_export.training.run import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs; do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    data = grey_images(folder / "my data.npz")
    seen = []
    trained = train_tiny(folder / "run", data, progress=lambda *step: seen.append(step), seed=5)
    return RunDirectory(folder / "run"), trained, data, seen


def _rows(run):
    with run.metrics_file.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_metrics_have_a_line_per_epoch_for_training_and_validation(finished):
    run, trained, _, _ = finished
    rows = _rows(run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for column in ("loss", "accuracy", "top5", "val_loss", "val_accuracy", "val_top5"):
        values = [float(row[column]) for row in rows]
        assert np.isfinite(values).all()
        if "loss" not in column:
            assert 0 <= min(values) <= max(values) <= 1
    assert trained.validation_top1 == max(float(row["val_accuracy"]) for row in rows)
    assert trained.epochs == 2


def test_the_curves_are_a_picture_with_something_in_it(finished):
    with Image.open(finished[0].curves_file) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > picture.height > 200
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_the_reported_accuracy_is_that_of_the_best_weights_on_the_test_split(finished):
    run, trained, data, _ = finished
    model = checkpoint.load(run.best_file)
    with np.load(data) as arrays:
        logits = np.asarray(model(arrays["x_test"].astype(np.float32), training=False))
        labels = arrays["y_test"]
    assert trained.top1 == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert trained.samples == 30
    assert trained.top5 == 1
    assert trained.best == run.best_file
    assert not hasattr(model, "optimizer") or model.optimizer is None


def test_the_record_says_what_was_asked_and_reached(finished):
    run, trained, data, _ = finished
    record = run.record()
    asked = {"data": data, "epochs": 2, "batch": 8, "learning_rate": 3e-3, "seed": 5}
    assert record["train"] == TrainSpec("").to_dict() | asked
    assert record["model"]["classes"] == 3
    assert record["model"]["labels"] == ["0", "1", "2"]
    assert record["test"] == {"top1": trained.top1, "top5": trained.top5, "samples": 30}
    assert record["environment"]["backend"] == "tensorflow"
    assert checkpoint.labels(checkpoint.load(run.best_file)) == ("0", "1", "2")


def test_the_card_has_the_accuracy(finished):
    run, trained, _, _ = finished
    assert f"| test | 30 | {trained.top1:.2%} | 100.00% |" in run.card_file.read_text()


def test_the_command_in_the_card_asks_for_the_same_run(finished):
    run, _, data, _ = finished
    (line,) = [
        li for li in run.card_file.read_text().splitlines() if li.startswith("cct-export train")
    ]
    words = shlex.split(line)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["cct-export", "train"]
    assert options == {
        "--model": "tiny", "--data": data, "--epochs": "2", "--batch": "8", "--seed": "5",
        "--learning-rate": "0.003",
    }  # fmt: skip


def test_progress_is_called_for_every_step_and_the_end_of_an_epoch(finished):
    steps = [(epoch, step, of) for epoch, step, of, _ in finished[3]]
    assert steps == [(e, s, 7) for e in (1, 2) for s in (*range(1, 8), 0)]
    assert "val_accuracy" in finished[3][-1][3]


def test_nothing_else_is_left_in_the_folder(finished):
    names = {path.name for path in finished[0].path.iterdir()}
    assert names == {
        "run.json", "best.keras", "state.npz", "metrics.csv", "curves.png", "model.png",
        "README.md", ".lock",
    }  # fmt: skip


def test_a_run_is_not_begun_over_another(finished):
    run, _, data, _ = finished
    before = run.state_file.read_bytes()
    with pytest.raises(CCTExportError, match=r"already holds a run: add --resume"):
        train_tiny(run.path, data, seed=5)
    assert run.state_file.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 6}, "train seed 5, not 6"),
        ({"batch": 16}, "train batch 8, not 16"),
        ({"learning_rate": 1.0}, r"train learning_rate 0\.003, not 1\.0"),
        ({"epochs": 1}, "train epochs 2, not 1"),
    ],
)
def test_resuming_with_other_options_is_refused_naming_what_differs(finished, changed, message):
    run, _, data, _ = finished
    before = run.record_file.read_bytes()
    with pytest.raises(CCTExportError, match=f"was begun with {message}"):
        train_tiny(run.path, data, resume=True, **{"seed": 5} | changed)
    assert run.record_file.read_bytes() == before


def test_resuming_with_other_data_is_refused_naming_what_differs(finished, tmp_path):
    run = finished[0]
    with pytest.raises(CCTExportError, match=r"train data .*my data\.npz.* not .*b\.npz"):
        train_tiny(run.path, grey_images(tmp_path / "b.npz"), resume=True, seed=5)


def test_resuming_with_another_model_is_refused_naming_what_differs(finished):
    run, _, data, _ = finished
    recipe = TrainSpec(data, epochs=2, batch=8, learning_rate=3e-3, seed=5)
    with pytest.raises(CCTExportError, match="was begun with model layers 1, not 2"):
        train(replace(TINY, layers=2), recipe, run.path, True, lambda *_: None)


def test_resuming_where_no_run_is_says_so_and_makes_nothing(tmp_path):
    data = grey_images(tmp_path / "d.npz")
    with pytest.raises(InvalidModel, match=r"none is not a run directory: no run\.json"):
        train_tiny(tmp_path / "none", data, resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"xx", "half"])
def test_a_damaged_state_is_refused_in_one_line(finished, tmp_path, content):
    run, _, data, _ = finished
    (tmp_path / "run.json").write_bytes(run.record_file.read_bytes())
    state = run.state_file.read_bytes()
    (tmp_path / "state.npz").write_bytes(state[: len(state) // 2] if content == "half" else content)
    with pytest.raises(InvalidModel, match=r"state\.npz is damaged") as refused:
        train_tiny(tmp_path, data, resume=True, epochs=3, seed=5)
    assert "\n" not in str(refused.value)


def test_data_of_one_class_is_refused_and_nothing_is_made(tmp_path):
    data = grey_images(tmp_path / "d.npz", classes=1)
    with pytest.raises(InvalidData, match=r"d\.npz has one class only"):
        train_tiny(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_too_few_images_are_refused_and_nothing_is_made(tmp_path):
    data = grey_images(tmp_path / "d.npz", count=4)
    with pytest.raises(InvalidData, match="4 training images are too few to hold out 10%"):
        train_tiny(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_a_record_of_before_something_could_be_asked_for_is_resumed(finished, tmp_path):
    run, _, data, _ = finished
    record = run.record()
    del record["train"]["freeze"], record["model"]["stochastic_depth_mode"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    for file in (run.state_file, run.best_file):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert train_tiny(tmp_path, data, resume=True, seed=5, epochs=3).epochs == 3


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    data = grey_images(tmp_path / "d.npz")
    for folder in ("file", "file/run"):
        with pytest.raises(OutputError, match="cannot write"):
            train_tiny(tmp_path / folder, data)
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_held_out_images_are_never_trained_on(tmp_path):
    from cct_export.data.dataset import ArraySplit
    from cct_export.training.loop import _holdout

    split = ArraySplit(np.zeros((50, 1, 1, 1), np.uint8), np.zeros(50, np.int64))
    recipe = TrainSpec(data="x", validation=0.2, seed=1)
    held_out, kept = _holdout(split, recipe)
    assert len(held_out) == 10
    assert sorted([*held_out, *kept]) == list(range(50))
    assert np.array_equal(held_out, _holdout(split, recipe)[0])
    other = _holdout(split, TrainSpec(data="x", validation=0.2, seed=2))[0]
    assert not np.array_equal(held_out, other)


def test_the_state_comes_back_bit_by_bit(finished):
    from cct_export.model.cct import CCT
    from cct_export.training.learner import compiled

    run = finished[0]
    model = compiled(CCT(run.record()["model"]), TrainSpec("", learning_rate=3e-3), 7)
    history = run.load_state(model)
    with np.load(run.state_file) as state:
        assert json.loads(str(state["history"])) == history
        for prefix, owner in (("model", model), ("optimizer", model.optimizer)):
            assert sum(name.startswith(prefix) for name in state) == len(owner.variables)
            for index, variable in enumerate(owner.variables):
                assert np.array_equal(np.asarray(variable), state[f"{prefix}_{index}"])
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert any("seed" in variable.path for variable in model.variables)


def test_corrupt_images_are_left_out_when_asked_by_the_run_and_by_what_is_made_of_it(
    tmp_path, in_process
):
    for split, count in (("train", 24), ("test", 6)):
        for name, shade in (("dark", 0), ("light", 200)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (32, 32), (shade + index,) * 3).save(folder / f"{index:02}.png")
    broken = tmp_path / "photos/train/dark/07.png"
    broken.write_bytes(broken.read_bytes()[:60])
    arguments = (
        "export", "train", "--data", tmp_path / "photos", "--epochs", 1, "--batch", 16,
        "-o", tmp_path / "run",
    )  # fmt: skip
    ended = in_process(*arguments)
    assert ended.code == 1
    assert "07.png is not a readable image" in ended.err
    assert "--skip-corrupt" in ended.err
    ended = in_process(*arguments, "--skip-corrupt")
    assert ended.code == 0, ended.err
    assert "07.png" in ended.err
    path = tmp_path / "m.tflite"
    ended = in_process("export", "tflite", tmp_path / "run", "--quantize", "int8", "-o", path)
    assert "calibrated on 47 training images" in ended.err


@pytest.mark.parametrize("knobs", [{"crop": 0.1}, {"mixup": 0.2}, {"rand_augment": 1}])
def test_steps_that_cannot_be_compiled_are_refused_before_any_data_is_read(tmp_path, knobs):
    (name,) = knobs
    with pytest.raises(InvalidRequest, match=f"jit on: .* cannot compile what {name} would do"):
        train_tiny(tmp_path / "run", "nowhere", jit="on", **knobs)
    assert not (tmp_path / "run").exists()


def test_a_corrupt_test_image_is_refused_before_the_first_epoch(tmp_path):
    for split, count in (("train", 20), ("test", 40)):
        for name, shade in (("dark", 0), ("light", 200)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("L", (8, 8), shade + index).save(folder / f"{index:02}.png")
    broken = tmp_path / "photos/test/light/31.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InvalidData, match=r"light/31\.png is not a readable image.*--skip-corrupt"):
        train_tiny(tmp_path / "run", str(tmp_path / "photos"), epochs=1)
    assert not (tmp_path / "run").exists()


def test_a_warm_up_longer_than_the_run_is_told_of(tmp_path, caplog):
    data = grey_images(tmp_path / "d.npz")
    train_tiny(tmp_path / "run", data, epochs=1, warmup=2.0)
    assert "rises for 2 epochs and the run has 1: it never reaches 0.003" in caplog.text
