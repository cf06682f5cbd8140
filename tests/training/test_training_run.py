"""A training run: its results and files, and data that it refuses."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_run import TINY, gray_images, train_tiny

from cct_export.data.recompressed import recompressed
from cct_export.errors import InvalidData, InvalidRequest
from cct_export.model import checkpoint
from cct_export.specs import TrainSpec
from cct_export.training.loop import holdout
from cct_export.training.run import Accuracy, RunDirectory


def test_the_metrics_have_training_and_validation_of_every_epoch(finished, rows):
    metrics = rows(finished.run)
    assert [row["epoch"] for row in metrics] == ["1", "2"]
    for column in ("loss", "accuracy", "top5", "val_loss", "val_accuracy", "val_top5"):
        values = [float(row[column]) for row in metrics]
        assert np.isfinite(values).all()
        if "loss" not in column:
            assert 0 <= min(values) <= max(values) <= 1
    best = max(float(row["val_accuracy"]) for row in metrics)
    assert finished.trained.validation_top1 == finished.run.record().validation_top1 == best
    assert finished.trained.epochs == 2


def test_the_metrics_are_in_a_fixed_order_and_have_no_more_digits_than_float32(finished):
    header, *lines = finished.run.metrics_file.read_text().splitlines()
    assert header == "epoch,loss,accuracy,top5,val_loss,val_accuracy,val_top5,learning_rate"
    for line in lines:
        _, *values, learning_rate = line.split(",")
        assert learning_rate == "0.003"
        for value in values:
            assert value == str(float(str(np.float32(value))))


def test_the_command_says_what_it_wrote_and_where(in_process, tmp_path, checkpoint_file):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    data = gray_images(tmp_path / "d.npz")
    folder = tmp_path / "new" / "run"
    options = ("--from", checkpoint_file, "--data", data, "--epochs", 1, "--log", "tensorboard")
    ended = in_process("export", "train", *options, "-o", folder)
    assert ended.code == 0, ended.err
    first, *names = ended.err.splitlines()[-1].replace(": ", ", ").split(", ")
    assert first == f"wrote {folder}"
    assert set(names) == {path.name for path in folder.iterdir()} - {".lock"}
    quiet = in_process("export", "train", *options, "-q", "-o", tmp_path / "quiet")
    assert "wrote" not in quiet.err


def test_the_test_accuracy_is_that_of_the_best_weights(finished):
    trained = finished.trained
    model = checkpoint.load(finished.run.best_file)
    with np.load(finished.data) as arrays:
        logits = np.asarray(model(arrays["x_test"].astype(np.float32), training=False))
        labels = arrays["y_test"]
    assert trained.top1 == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert (trained.samples, trained.top5) == (30, 1)
    assert trained.best == finished.run.best_file
    assert getattr(model, "optimizer", None) is None
    assert checkpoint.labels(model) == ("0", "1", "2")


def test_the_accuracy_after_jpeg_compression_is_that_of_the_best_weights(finished):
    model, jpeg = checkpoint.load(finished.run.best_file), finished.run.record().test_jpeg
    with np.load(finished.data) as arrays:
        images = np.stack([recompressed(image, quality=75) for image in arrays["x_test"]])
        logits = np.asarray(model(images.astype(np.float32), training=False))
        top1 = (logits.argmax(axis=1) == arrays["y_test"]).mean()
    assert jpeg == Accuracy(pytest.approx(top1), 1.0, 30)
    assert finished.trained.jpeg_top1 == finished.trained.to_dict()["jpeg_top1"] == jpeg.top1


def test_images_of_four_channels_are_not_evaluated_as_jpeg(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 4)).astype(np.uint8)
    labels, data = np.arange(20) % 2, str(tmp_path / "d.npz")
    np.savez(data, x_train=images, y_train=labels, x_test=images, y_test=labels)
    trained = train_tiny(tmp_path / "run", data, model=replace(TINY, channels=4), epochs=1)
    assert trained.jpeg_top1 is None
    assert "JPEG" not in RunDirectory(tmp_path / "run").card_file.read_text()


def test_the_card_has_the_test_accuracy(finished):
    card = finished.run.card_file.read_text()
    assert f"| test | 30 | {finished.trained.top1:.2%} | 100.00% |" in card
    assert f"| test, as JPEG | 30 | {finished.trained.jpeg_top1:.2%} | 100.00% |" in card


def test_the_command_of_the_card_repeats_the_run(finished):
    lines = finished.run.card_file.read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("cct-export train")]
    words = shlex.split(line)
    assert words[:2] == ["cct-export", "train"]
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--model": "tiny", "--data": finished.data, "--epochs": "2", "--batch": "8",
        "--seed": "5", "--learning-rate": "0.003",
    }  # fmt: skip


def test_progress_is_reported_for_every_step_and_epoch(finished):
    steps = [(epoch, step, of) for epoch, step, of, _ in finished.progress]
    assert steps == [(e, s, 7) for e in (1, 2) for s in (*range(1, 8), 0)]
    assert "val_accuracy" in finished.progress[-1][3]


def test_the_run_directory_has_these_files_only(finished):
    assert {path.name for path in finished.run.path.iterdir()} == {
        "run.json", "best.keras", "state.npz", "metrics.csv", "curves.png", "model.png",
        "README.md", ".lock",
    }  # fmt: skip


def test_data_of_one_class_is_refused(tmp_path):
    data = gray_images(tmp_path / "d.npz", classes=1)
    with pytest.raises(InvalidData, match=r"d\.npz has one class only"):
        train_tiny(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_too_few_images_for_a_validation_split_are_refused(tmp_path):
    data = gray_images(tmp_path / "d.npz", count=4)
    with pytest.raises(InvalidData, match="4 training images are too few to hold out 10%"):
        train_tiny(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_validation_images_are_not_trained_on():
    recipe = TrainSpec("x", validation=0.2, seed=1)
    validation, training = holdout(50, recipe)
    assert len(validation) == 10
    assert sorted([*validation, *training]) == list(range(50))
    assert np.array_equal(validation, holdout(50, recipe)[0])
    assert not np.array_equal(validation, holdout(50, TrainSpec("x", validation=0.2, seed=2))[0])


def _photos(folder, train, test):
    for split, count in (("train", train), ("test", test)):
        for name, shade in (("dark", 0), ("light", 200)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                path = folder / split / name / f"{index:02}.png"
                Image.new("L", (8, 8), shade + index).save(path)
    return folder


def _truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_corrupt_images_are_skipped_on_request_in_training_and_in_an_export_of_it(
    tmp_path, in_process, checkpoint_file
):
    photos = _photos(tmp_path / "photos", 24, 6)
    _truncate(photos / "train/dark/07.png", 40)
    arguments = (
        "export", "train", "--from", checkpoint_file, "--data", photos, "--epochs", 1,
        "--batch", 16, "-o", tmp_path / "run",
    )  # fmt: skip
    ended = in_process(*arguments)
    assert ended.code == 1
    assert "07.png is not a readable image" in ended.err
    assert "--skip-corrupt" in ended.err
    (photos / "train/dark/notes.txt").touch()
    ended = in_process(*arguments, "--skip-corrupt")
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert len(set(lines)) == len(lines), "the images are read once"
    assert sum("left out" in line for line in lines) == 3
    assert sum("07.png is not a readable image" in line for line in lines) == 1
    path = tmp_path / "m.tflite"
    ended = in_process("export", "tflite", tmp_path / "run", "--quantize", "int8", "-o", path)
    assert "calibrated on 47 training images" in ended.err


def test_a_corrupt_test_image_is_refused_before_the_first_epoch(tmp_path):
    photos = _photos(tmp_path / "photos", 20, 40)
    _truncate(photos / "test/light/31.png", 40)
    with pytest.raises(InvalidData, match=r"light/31\.png is not a readable image.*--skip-corrupt"):
        train_tiny(tmp_path / "run", str(photos), epochs=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("augmentation", [{"crop": 0.1}, {"mixup": 0.2}, {"rand_augment": 1}])
def test_steps_that_cannot_be_compiled_are_refused_before_data_is_read(tmp_path, augmentation):
    (name,) = augmentation
    message = f"jit on: .* cannot compile the augmentation of {name}"
    with pytest.raises(InvalidRequest, match=message):
        train_tiny(tmp_path / "run", "nowhere", jit="on", **augmentation)
    assert not (tmp_path / "run").exists()
