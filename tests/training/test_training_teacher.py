"""Knowledge distillation: what the teacher sees, the loss, what is kept, and what is refused."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_run import TINY, copying_after_first_epoch, gray_images

import cct_export
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training import learner
from cct_export.training.run import RunDirectory, WeightsSource
from cct_export.training.teacher import (
    FrozenTeacher,
    Teacher,
    distillation_losses,
    embedding_losses,
)
from cct_export.training.transfer import Pretrained

SPEC = replace(TINY, classes=3)
SHAPE = (8, 8, 1)
RECIPE = TrainSpec("x", embedding_weight=0.5)
LOGITS = arrays(np.float32, (4, 5), elements=st.floats(-20, 20, width=32))


def _classifier(*, size=8, channels=1, classes=3, activation=None, seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((size, size, channels)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(6, 3, activation="relu", bias_initializer="random_normal"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation=activation),
        ]
    )


def _teacher(model=None, labels=()):
    return Teacher(model or _classifier(), WeightsSource("big", "a" * 64), labels)


def _pixels(count=8):
    return np.random.default_rng(2).integers(0, 256, (count, *SHAPE)).astype(np.float32)


def _batch(count=8):
    targets = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    return {"image": _pixels(count).astype(np.uint8), "target": targets}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return gray_images(tmp_path_factory.mktemp("data") / "gray.npz")


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    """A ``.keras`` file of a classifier with other layers than a CCT."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    _classifier().save(path)
    return path


@pytest.fixture
def train(in_process, tmp_path, data):
    """Runs ``cct-export train`` of the tiny model's data; returns how it ended and the run."""
    tiny = tmp_path / "tiny.keras"
    checkpoint.save(CCT(SPEC), tiny)

    def run(*options, folder="run"):
        given = ("--data", data, *(() if "--resume" in options else ("--from", tiny)))
        ended = in_process("export", "train", *given, *options, "-o", tmp_path / folder)
        return ended, RunDirectory(tmp_path / folder)

    return run


def _log_softmax(values):
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(LOGITS, LOGITS, st.floats(0.5, 8))
def test_kl_is_the_divergence_of_the_softened_distributions(teacher, student, temperature):
    recipe = TrainSpec("x", temperature=temperature)
    losses = keras.ops.convert_to_numpy(distillation_losses(teacher, student, recipe))
    wanted, got = (_log_softmax(v.astype(np.float64) / temperature) for v in (teacher, student))
    expected = temperature**2 * (np.exp(wanted) * (wanted - got)).sum(axis=1)
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(LOGITS, st.floats(-9, 9), st.sampled_from(["kl", "mse"]))
def test_a_model_that_answers_as_its_teacher_has_no_loss(logits, constant, loss):
    recipe = TrainSpec("x", teacher_loss=loss)
    losses = distillation_losses(logits, logits + np.float32(constant), recipe)
    assert keras.ops.convert_to_numpy(losses) == pytest.approx(0, abs=1e-3)


def test_mse_is_half_the_mean_square_of_centred_logits():
    teacher, student = np.float32([[1, 2, 6]]), np.float32([[0, 0, 3]])
    losses = distillation_losses(teacher, student, TrainSpec("x", teacher_loss="mse"))
    # The difference (1, 2, 3) less its mean 2.
    assert keras.ops.convert_to_numpy(losses) == pytest.approx([1 / 3])


def test_embeddings_are_compared_whatever_the_scale_of_the_teachers():
    teacher = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    unit = teacher / np.sqrt((teacher**2).mean(axis=1, keepdims=True))
    for scale in (1e-2, 1, 50):
        losses = keras.ops.convert_to_numpy(embedding_losses(scale * teacher, unit))
        assert losses == pytest.approx(0, abs=1e-4)


def test_the_teacher_sees_what_the_model_sees():
    model = learner.compiled(CCT(SPEC), TrainSpec("x"), 1, teacher=_teacher())
    model.augmentation = lambda images, targets: (255 - images, targets)
    answers = model(_batch(), training=True)
    logits, _ = model.teacher(255 - _pixels())
    assert np.array_equal(answers["teacher"], logits)
    assert "teacher" not in model(_batch(), training=False)


def test_a_teacher_computes_in_bfloat16_and_its_model_is_not_changed():
    model = _classifier()
    frozen = FrozenTeacher(_teacher(model))
    logits, embedding = frozen(_pixels())
    expected = model(_pixels())
    assert np.allclose(logits, expected, rtol=0.02, atol=0.02)
    assert not np.array_equal(logits, expected)
    assert embedding.shape == (8, 6)
    assert {layer.compute_dtype for layer in frozen.model.layers[2:]} == {"bfloat16"}
    assert {weight.dtype for weight in frozen.weights} == {"float32"}
    assert not frozen.trainable_weights
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert len(model.trainable_weights) == 4


def test_a_teacher_of_probabilities_teaches_what_its_logits_do():
    frozen = [FrozenTeacher(_teacher(_classifier(activation=name))) for name in (None, "softmax")]
    recipe = TrainSpec("x")
    logits, probabilities = (each(_pixels())[0] for each in frozen)
    losses = keras.ops.convert_to_numpy(distillation_losses(logits, probabilities, recipe))
    assert losses == pytest.approx(0, abs=1e-3)


def test_the_model_learns_its_teachers_answers_and_not_the_labels():
    recipe = TrainSpec("x", teacher_weight=1.0, learning_rate=1e-2, flip=False, temperature=1.0)
    model = learner.compiled(CCT(SPEC), recipe, 1, teacher=_teacher())
    batch = _batch(16)
    answers = model.teacher(batch["image"])[0]

    def distance():
        logits = model(batch, training=False)["logits"]
        return float(keras.ops.mean(distillation_losses(answers, logits, recipe)))

    before = distance()
    for _ in range(200):
        model.train_on_batch(batch)
    assert distance() < 0.05 * before


def test_neither_teacher_nor_projection_is_kept(train, teacher_file):
    ended, run = train(
        "--teacher", teacher_file, "--embedding-weight", "0.5", "--epochs", "1", "--batch", "8"
    )
    assert ended.code == 0, ended.err
    model = checkpoint.load(run.best_file)
    assert len(model.weights) == len(CCT(SPEC).weights)
    built = learner.compiled(CCT(SPEC), run.record().train, 1, teacher=_teacher())
    built.optimizer.build(built.trainable_variables)
    with np.load(run.state_file) as state:
        saved = [name for name in state if name.startswith("model_")]
    teacher = {id(variable) for variable in built.teacher.variables}
    assert len(saved) == sum(id(variable) not in teacher for variable in built.variables)
    assert run.record().teacher.source == str(teacher_file)


@pytest.mark.parametrize("recipe", [{}, {"embedding_weight": 0.3, "teacher_loss": "mse"}])
def test_a_resumed_run_goes_on_with_its_teacher(tmp_path, data, teacher_file, recipe, same_state):
    recipe = TrainSpec(data, epochs=3, batch=8, cutmix=1.0, **recipe)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = {"recipe": recipe, "model": TINY, "teacher": teacher_file}
    cct_export.train(whole, progress=copying_after_first_epoch(whole, broken), **options)
    assert len(RunDirectory(broken).metrics_file.read_text().splitlines()) == 2
    cct_export.train(broken, resume=True, **options)
    same_state(RunDirectory(whole), RunDirectory(broken))


def test_resume_notices_another_teacher(train, teacher_file, tmp_path):
    ended, _ = train("--teacher", teacher_file, "--epochs", "1", "--batch", "8")
    assert ended.code == 0, ended.err
    other = tmp_path / "other.keras"
    _classifier(seed=7).save(other)
    ended, _ = train("--resume", "--teacher", other)
    assert ended.code == 1
    assert f"was started with the teacher {teacher_file}" in ended.err
    assert "resume with the same --teacher" in ended.err
    ended, _ = train("--resume")
    assert ended.code == 0, ended.err


def test_a_run_without_a_teacher_gets_none_on_resume(train, teacher_file):
    ended, _ = train("--epochs", "1", "--batch", "8")
    assert ended.code == 0, ended.err
    ended, _ = train("--resume", "--teacher", teacher_file)
    assert ended.code == 1
    assert "was started with the teacher none" in ended.err
    assert "resume without --teacher" in ended.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 4}, "big knows 4 classes, and the data has 3"),
        ({"size": 12}, "big takes images of 12×12×1, and the model 8×8×1"),
        ({"channels": 3}, "big takes images of 8×8×3, and the model 8×8×1"),
        ({"activation": "sigmoid"}, "one logit or probability for each class"),
        ({"classes": 1, "activation": "sigmoid"}, "one logit or probability for each class"),
    ],
)
def test_a_teacher_of_other_images_or_classes_is_refused(options, message):
    with pytest.raises(InvalidRequest, match=message):
        _teacher(_classifier(**options)).check(SPEC, None, TrainSpec("x"))


def test_a_teacher_with_its_classes_in_another_order_is_refused():
    spec = replace(SPEC, labels=("cat", "dog", "frog"))
    _teacher(labels=("cat", "dog", "frog")).check(spec, None, RECIPE)
    with pytest.raises(InvalidRequest, match="knows a class 'frog' where the data has 'dog'"):
        _teacher(labels=("cat", "frog", "dog")).check(spec, None, RECIPE)


def test_a_teacher_that_gives_nan_is_refused():
    model = _classifier()
    model.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(InvalidModel, match="the teacher big gives NaN"):
        _teacher(model).check(SPEC, None, RECIPE)


def test_a_teacher_with_the_weights_that_training_starts_from_is_refused():
    with pytest.raises(InvalidRequest, match="the weights that training starts from"):
        _teacher().check(SPEC, Pretrained(CCT(SPEC), WeightsSource("tiny", "a" * 64)), RECIPE)


def test_a_teacher_without_an_embedding_teaches_by_its_logits_alone():
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    teacher = _teacher(keras.Model(inputs, outputs))
    teacher.check(SPEC, None, TrainSpec("x"))
    with pytest.raises(InvalidRequest, match="set embedding_weight to 0"):
        teacher.check(SPEC, None, RECIPE)


def test_a_teacher_that_cannot_be_copied_is_refused():
    class Mystery(keras.layers.Layer):
        def __init__(self, secret):
            super().__init__()

        def call(self, x):
            return x

    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(Mystery(1)(inputs)))
    with pytest.raises(InvalidModel, match="the teacher big cannot be copied"):
        FrozenTeacher(_teacher(keras.Model(inputs, outputs)))


@pytest.mark.parametrize(
    "option",
    [
        ("--teacher-weight", "0.5"), ("--teacher-loss", "mse"), ("--temperature", "4"),
        ("--embedding-weight", "0.1"),
    ],
)  # fmt: skip
def test_an_option_of_a_teacher_is_refused_without_one(train, option):
    ended, run = train(*option)
    assert ended.code == 2
    name = option[0].removeprefix("--").replace("-", "_")
    assert f"{name} does nothing without a teacher: name one (--teacher)" in ended.err
    assert not run.path.exists()


def test_a_saved_model_is_refused_as_teacher_with_what_to_name(tmp_path):
    _classifier().export(tmp_path / "saved", verbose=False)
    loaded = cct_export.load(tmp_path / "saved")
    message = r"copied \(Object RestoredFunction was .*\): name a \.keras or \.h5 file"
    with pytest.raises(InvalidModel, match=message):
        FrozenTeacher(Teacher(loaded.model, WeightsSource("saved", loaded.sha256)))


def test_a_teacher_that_does_not_exist_is_refused_before_anything_is_loaded(train):
    ended, run = train("--teacher", "nobody.keras")
    assert ended.code == 2
    assert "nobody.keras" in ended.err
    assert not run.path.exists()


@pytest.mark.slow
def test_a_teacher_teaches_on_jax(tmp_path, data, teacher_file):
    code = "from cct_export.commands.program import export_main; export_main()"
    tiny = tmp_path / "tiny.keras"
    checkpoint.save(CCT(SPEC), tiny)
    done = subprocess.run(
        [
            sys.executable, "-c", code, "train", "--data", data, "--from", tiny,
            "--recipe", "keras-io", "--teacher", teacher_file, "--embedding-weight", "0.1",
            "--epochs", "1", "--batch", "16", "-o", tmp_path / "run",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "best of 1 epoch" in done.stderr
