"""Fine-tuning from the command line: frozen parts, a new head, another resolution, resuming."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_run import TINY, gray_images

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.files import sha256
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training.run import RunDirectory, WeightsSource

LABELS = ("even", "odd")


@pytest.fixture(scope="module")
def parity(tmp_path_factory, digit_images):
    """An ``.npz`` of digits in two classes, in the size of ``digits_run``."""
    pixels, labels = digit_images
    return _saved(tmp_path_factory.mktemp("parity") / "32.npz", pixels, labels % 2)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An ``.npz`` of gray images of 12 pixels in two classes."""
    labels = np.arange(60) % 2
    pixels = (np.ones((60, 12, 12, 1)) * labels[:, None, None, None] * 200).astype(np.uint8)
    return _saved(tmp_path_factory.mktemp("large") / "12.npz", pixels, labels)


def _saved(path, pixels, labels):
    half = len(pixels) // 2
    np.savez(
        path, x_train=pixels[:half], y_train=labels[:half], x_test=pixels[half:],
        y_test=labels[half:], classes=np.array(LABELS),
    )  # fmt: skip
    return path


@pytest.fixture
def tune(in_process, tmp_path):
    """Runs ``cct-export train`` into ``tmp_path/run``; returns how it ended and the run."""

    def run(*options, folder="run"):
        ended = in_process("export", "train", *options, "-o", tmp_path / folder)
        return ended, RunDirectory(tmp_path / folder)

    return run


def _weights(path):
    model = checkpoint.load(path)
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def test_frozen_parts_are_not_trained_and_an_export_has_the_new_labels(
    tune, in_process, digits_model, digits_run, parity, tmp_path
):
    ended, run = tune(
        "--from", digits_run, "--recipe", "keras-io", "--data", parity, "--epochs", 4,
        "--batch", 32, "--freeze", "tokenizer, positions,blocks:1", "--learning-rate", 0.003,
        "--weight-decay", 0,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "a new head for 2 classes in place of 10" in ended.err
    record = run.record()
    assert record.start == WeightsSource(str(digits_run), sha256(digits_model))
    assert record.train.freeze == ("tokenizer", "positions", "blocks:1")
    assert (record.train.learning_rate, record.train.weight_decay) == (0.003, 0)
    assert record.test.top1 > 0.75
    before, after = _weights(digits_model), _weights(run.best_file)
    for name in ("tokenizer", "position_embedding", "block_0"):
        assert all(map(np.array_equal, before[name], after[name])), name
    assert not np.array_equal(before["block_1"][2], after["block_1"][2])
    assert [weight.shape for weight in after["logits"]] == [(32, 2), (2,)]
    model = checkpoint.load(run.best_file)
    assert len(model.trainable_variables) == len(model.weights), "nothing is frozen in a checkpoint"
    path = tmp_path / "m.onnx"
    ended = in_process("export", "onnx", run.path, "-o", path, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["artifact"]["labels"] == list(LABELS)


def test_another_resolution_is_fine_tuned_and_resumed_with_the_options_of_the_run(
    tune, checkpoint_file, large
):
    options = (
        "--from", checkpoint_file, "--data", large, "--image-size", 12, "--batch", 30,
        "--schedule", "constant", "--warmup", 0, "--freeze", "blocks:1", "--no-flip",
        "--stochastic-depth-mode", "batch",
    )  # fmt: skip
    ended, run = tune(*options, "--epochs", 1)
    assert ended.code == 0, ended.err
    before = run.record()
    assert before.train.recipe == "finetune"
    assert "tokens interpolated to" in ended.err
    model = checkpoint.load(run.best_file)
    assert checkpoint.image_shape(model) == (12, 12, 1)
    assert model.spec.labels == LABELS

    ended, run = tune("--resume", "--epochs", 2)
    assert ended.code == 0, ended.err
    after = run.record()
    assert after.train.to_dict() == before.train.to_dict() | {"epochs": 2}
    assert (after.model, after.start) == (before.model, before.start)
    assert after.model.stochastic_depth_mode == "batch"
    assert len(run.metrics_file.read_text().splitlines()) == 3

    ended, _ = tune("--resume", "--ema", 0.5)
    assert ended.code == 1
    assert "was started with train ema 0.0, not 0.5" in ended.err


def test_fine_tuning_learns_in_its_only_epoch(tune, tmp_path):
    keras.utils.set_random_seed(0)
    checkpoint.save(CCT(replace(TINY, classes=3)), tmp_path / "tiny.keras")
    data = gray_images(tmp_path / "gray.npz", 300)
    ended, run = tune(
        "--from", tmp_path / "tiny.keras", "--data", data, "--batch", 8, "--learning-rate", 0.01,
        "--epochs", 1,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "warm-up of 1 epoch shortened to 0.1: a tenth of the run" in ended.err
    # It was 0.67 when the learning rate rose throughout the epoch; one of three classes is right
    # by chance.
    assert run.record().test.top1 > 0.9


def test_resume_without_a_run_is_refused(tune):
    ended, run = tune("--resume")
    assert ended.code == 2
    assert "is not a run directory: no run.json in it" in ended.err
    assert not run.path.exists()


@pytest.fixture
def refused(tune):
    """Runs a command that must end in one line and make no run directory; returns the line."""

    def run(*options, code=1):
        ended, directory = tune(*options)
        assert ended.code == code, ended.err
        assert len(ended.err.splitlines()) == 1, ended.err
        assert not directory.path.exists()
        return ended.err

    return run


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (",", "no part is called ',': choose from tokenizer, positions, "),
        ("", "no part is called '': choose from tokenizer, positions, "),
        ("magic", "no part is called 'magic': choose from tokenizer, positions, "),
        ("blocks:9", "'blocks:9' of 1 blocks"),
        ("head", "the head cannot be frozen: it is new"),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused(refused, checkpoint_file, large, parts, message):
    options = ("--from", checkpoint_file, "--data", large, "--image-size", 12, "--freeze", parts)
    assert message in refused(*options, code=2)


def test_freezing_everything_is_refused(refused, digits_run):
    parts = "tokenizer,positions,blocks,norm,pooling,head"
    line = refused("--from", digits_run, "--data", "digits", "--freeze", parts, code=2)
    assert line == f"error: --freeze {parts} leaves nothing to train\n"


def test_freezing_random_weights_is_refused(refused):
    line = refused("--data", "digits", "--freeze", "blocks", code=2)
    assert "only pretrained weights can be frozen: name the model to fine-tune" in line


def test_a_preset_without_weights_cannot_be_fine_tuned(refused):
    line = refused("--from", "cct_4_3x2_32", "--data", "digits", code=2)
    assert line.startswith("error: preset cct_4_3x2_32 ships no weights")


def test_a_model_that_is_no_cct_cannot_be_fine_tuned(refused, tmp_path):
    cnn = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    cnn.save(tmp_path / "cnn.keras")
    line = refused("--from", tmp_path / "cnn.keras", "--data", "digits")
    assert line.endswith("cnn.keras is no CCT (Functional): only a CCT can be fine-tuned\n")


def test_images_too_small_for_the_tokenizer_are_refused(refused, digits_run):
    line = refused("--from", digits_run, "--image-size", 3)
    assert "images of 3×3 are too small for small: convolution 2 of 2" in line
    line = refused("--model", "cct_keras_io", "--image-size", 3)
    assert "images of 3×3 are too small for cct_keras_io" in line


def test_a_preset_and_a_pretrained_model_are_not_both_accepted(tune, checkpoint_file, tmp_path):
    ended, _ = tune("--model", "cct_2_3x2_32", "--from", checkpoint_file)
    assert ended.code == 2
    assert "--from brings its architecture: leave --model out" in ended.err
    with pytest.raises(InvalidRequest, match="pretrained brings its architecture"):
        cct_export.train(
            tmp_path / "none",
            recipe=TrainSpec("digits"),
            model="cct_2_3x2_32",
            pretrained=checkpoint_file,
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cct_2_3x2_32_sine", "cct_7_7x2_224"])
def test_a_preset_of_the_paper_is_trained_at_another_resolution(tune, tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 40, 40, 3), np.uint8)
    data = _saved(tmp_path / "40.npz", pixels, np.arange(200) % 2)
    options = ("--model", name, "--data", data, "--image-size", 40, "--batch", 90)
    ended, run = tune(*options, "--epochs", 1)
    assert ended.code == 0, ended.err
    model = json.loads(run.record_file.read_text())["model"]
    assert (model["name"], model["image_size"]) == (name, 40)
    assert f"--model {name} --image-size 40" in run.card_file.read_text()
