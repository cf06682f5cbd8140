"""Fine-tuning with rounded activations: what is rounded, who teaches, what is kept and refused."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_run import TINY, copying_after_first_epoch, gray_images

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.model.fake_quantize import fake_quantization, fake_quantized
from cct_export.specs import TrainSpec
from cct_export.training import card, learner
from cct_export.training.run import RunDirectory, WeightsSource
from cct_export.training.teacher import Teacher
from cct_export.training.transfer import Pretrained

SPEC = replace(TINY, classes=3, labels=("0", "1", "2"), dropout=0.0, stochastic_depth=0.0)
ORIGIN = WeightsSource("tiny", "a" * 64)
RECIPE = TrainSpec("x", quantize="int8-full", flip=False, teacher_weight=1.0, teacher_loss="mse")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return gray_images(tmp_path_factory.mktemp("data") / "gray.npz")


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """A ``.keras`` file of the tiny model for the data's classes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    checkpoint.save(_cct(), path)
    return path


@pytest.fixture
def train(in_process, tmp_path, data):
    """Runs ``cct-export train`` of the gray images; returns how it ended and the run."""

    def run(*options, folder="run"):
        small = () if "--resume" in options else ("--epochs", 1, "--batch", 16)
        ended = in_process(
            "export", "train", "--data", data, *small, *options, "-o", tmp_path / folder
        )
        return ended, RunDirectory(tmp_path / folder)

    return run


def _cct():
    keras.utils.set_random_seed(4)
    return CCT(SPEC)


def _batch(count=64):
    pixels = np.random.default_rng(2).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    return {"image": pixels, "target": np.eye(3, dtype=np.float32)[np.arange(count) % 3]}


@pytest.mark.parametrize("training", [False, True])
def test_without_the_option_a_learner_gives_the_models_own_logits(training):
    cct, batch = _cct(), _batch()
    recipe = replace(RECIPE, quantize="none")
    logits = learner.compiled(cct, recipe, 1)(batch, training=training)["logits"]
    assert np.array_equal(logits, cct(batch["image"].astype(np.float32), training=training))


@pytest.mark.parametrize("training", [False, True])
def test_training_and_validation_round_the_model_and_not_its_teacher(training):
    cct, batch = _cct(), _batch()
    pixels = batch["image"].astype(np.float32)
    model = learner.compiled(cct, RECIPE, 1, teacher=Teacher(_cct(), ORIGIN))
    answers = model(batch, training=training)
    with fake_quantization(True):
        expected = fake_quantized(cct(pixels, training=training))
    assert np.array_equal(answers["logits"], expected)
    assert not np.array_equal(answers["logits"], cct(pixels, training=training))
    if training:
        assert np.array_equal(answers["teacher"], model.teacher(pixels)[0])


def test_the_model_is_its_own_teacher_and_an_ordinary_cct_is_kept(train, tiny_file):
    ended, run = train("--quantize", "int8-full", "--from", tiny_file, "--teacher-loss", "mse")
    assert ended.code == 0, ended.err
    record = run.record()
    assert record.train.quantize == "int8-full"
    assert record.teacher == record.start
    assert record.start.source == str(tiny_file)
    best = checkpoint.load(run.best_file)
    assert type(best) is CCT
    assert [w.path for w in best.weights] == [w.path for w in checkpoint.load(tiny_file).weights]
    with np.load(run.state_file) as state:
        saved = [name for name in state if name.startswith("model_")]
    plain, other = train("--from", tiny_file, folder="plain")
    assert plain.code == 0, plain.err
    with np.load(other.state_file) as state:
        assert saved == [name for name in state if name.startswith("model_")]


def test_the_accuracy_on_test_images_is_that_of_the_float_model(train, tiny_file, data):
    ended, run = train("--quantize", "int8-full", "--from", tiny_file)
    assert ended.code == 0, ended.err
    best = checkpoint.load(run.best_file)
    with np.load(data) as images:
        logits = best.predict(images["x_test"].astype(np.float32), verbose=0)
        top1 = np.mean(logits.argmax(1) == images["y_test"])
    assert run.record().test.top1 == pytest.approx(top1)


def test_the_card_and_its_command_name_the_scheme_and_the_teacher(train, tiny_file):
    ended, run = train("--quantize", "int8-full", "--from", tiny_file)
    assert ended.code == 0, ended.err
    command = card.command(run.record())
    assert f"--from {tiny_file}" in command
    assert f"--teacher {tiny_file}" in command
    assert "--quantize int8-full" in command
    assert "| quantize | int8-full |" in run.card_file.read_text()


def test_another_teacher_takes_its_place(train, tiny_file, tmp_path):
    keras.utils.set_random_seed(9)
    other = tmp_path / "other.keras"
    checkpoint.save(CCT(SPEC), other)
    ended, run = train("--quantize", "int8-full", "--from", tiny_file, "--teacher", other)
    assert ended.code == 0, ended.err
    assert run.record().teacher.source == str(other)


def test_a_resumed_run_goes_on_rounding(tmp_path, data, tiny_file, same_state):
    recipe = TrainSpec(data, epochs=3, batch=8, quantize="int8-full")
    whole, broken, plain = (tmp_path / name for name in ("whole", "broken", "plain"))
    options = {"recipe": recipe, "pretrained": tiny_file}
    cct_export.train(whole, progress=copying_after_first_epoch(whole, broken), **options)
    assert len(RunDirectory(broken).metrics_file.read_text().splitlines()) == 2
    cct_export.train(broken, resume=True, **options)
    same_state(RunDirectory(whole), RunDirectory(broken))
    cct_export.train(
        plain, recipe=replace(recipe, quantize="none", teacher_weight=0.0), pretrained=tiny_file
    )
    weights = [checkpoint.load(run / "best.keras").get_weights() for run in (whole, plain)]
    assert not all(map(np.array_equal, *weights))


def test_resume_takes_scheme_and_teacher_from_the_run_and_notices_another(train, tiny_file):
    ended, _ = train("--quantize", "int8-full", "--from", tiny_file, "--teacher-weight", 1)
    assert ended.code == 0, ended.err
    ended, _ = train("--resume", "--quantize", "none")
    assert ended.code == 1
    assert "was started with train quantize 'int8-full', not 'none'" in ended.err
    ended, run = train("--resume")
    assert ended.code == 0, ended.err
    assert run.record().train.quantize == "int8-full"


def test_it_is_refused_without_a_model_to_fine_tune(train):
    ended, run = train("--quantize", "int8-full")
    assert ended.code == 2
    assert "quantize int8-full fine-tunes a trained model: name it (--from)" in ended.err
    assert not run.path.exists()


def test_a_scheme_that_is_not_trained_with_is_refused(train, tiny_file):
    ended, run = train("--quantize", "int8", "--from", tiny_file)
    assert ended.code == 2
    assert "none" in ended.err and "int8-full" in ended.err
    assert not run.path.exists()


def test_its_own_weights_teach_a_model_that_is_rounded_only():
    teacher, start = Teacher(_cct(), ORIGIN), Pretrained(_cct(), ORIGIN)
    teacher.check(SPEC, start, RECIPE)
    with pytest.raises(InvalidRequest, match="the weights that training starts from"):
        teacher.check(SPEC, start, replace(RECIPE, quantize="none"))


@pytest.mark.slow
def test_it_rounds_on_jax(tmp_path, data, tiny_file):
    code = "from cct_export.commands.program import export_main; export_main()"
    done = subprocess.run(
        [
            sys.executable, "-c", code, "train", "--data", data, "--from", tiny_file,
            "--quantize", "int8-full", "--precision", "mixed_bfloat16", "--epochs", "1",
            "--batch", "16", "-o", tmp_path / "run",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "best of 1 epoch" in done.stderr
