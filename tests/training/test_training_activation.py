"""``cct-export train --activation``: ReLU in the MLPs of a preset or of a fine-tuned model."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_run import TINY, gray_images

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.files import sha256
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training.run import RunDirectory, WeightsSource
from cct_export.training.teacher import Teacher
from cct_export.training.transfer import Pretrained, architecture, load_pretrained

GELU = replace(TINY, classes=3, labels=("a", "b", "c"))
RELU = replace(GELU, activation="relu")
# From the one, to the other.
CHANGES = [("gelu", "relu"), ("relu", "gelu")]


@pytest.fixture
def data(tmp_path):
    return gray_images(tmp_path / "gray.npz")


@pytest.fixture
def train(in_process, tmp_path, data):
    """Runs ``cct-export train`` into ``tmp_path/run``; returns how it ended and the run."""

    def run(*options):
        given = ("train", "--data", data, *options, "-o", tmp_path / "run")
        return in_process("export", *given), RunDirectory(tmp_path / "run")

    return run


@pytest.fixture
def tiny(tmp_path):
    """Saves the tiny model with an activation; returns the file."""

    def save(activation):
        path = tmp_path / f"{activation}.keras"
        checkpoint.save(CCT(replace(TINY, classes=3, activation=activation)), path)
        return path

    return save


def _logits(model):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.float32)
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize("block", ["keras", "paper"])
@pytest.mark.parametrize(("before", "now"), CHANGES)
def test_another_activation_starts_from_the_same_weights(block, before, now):
    spec = replace(GELU, block=block, head_dim=8, padding=1, activation=before)
    base, model = CCT(spec), CCT(architecture(spec, activation=now))
    random = np.random.default_rng(1)
    base.set_weights([random.normal(0, 0.5, weight.shape) for weight in base.get_weights()])
    assert load_pretrained(base, model) == [f"{now} in place of {before} in its MLPs"]
    assert all(map(np.array_equal, base.get_weights(), model.get_weights()))
    assert np.abs(_logits(base) - _logits(model)).max() > 1e-3


def test_an_unknown_activation_is_refused():
    with pytest.raises(InvalidRequest, match="activation must be 'gelu' or 'relu', not 'silu'"):
        architecture(GELU, activation="silu")
    with pytest.raises(InvalidRequest, match="no activation is called 'rel': did you mean relu"):
        cct_export.train("none", recipe=TrainSpec("digits"), activation="rel")


@pytest.mark.parametrize(("before", "now"), CHANGES)
def test_a_fine_tuned_model_with_another_activation_is_resumed(train, tiny, before, now):
    start = tiny(before)
    constant = ("--recipe", "keras-io", "--batch", 20)
    ended, run = train("--from", start, "--activation", now, *constant, "--epochs", 1)
    assert ended.code == 0, ended.err
    assert f"{now} in place of {before} in its MLPs" in ended.err
    assert run.record().model.activation == now
    assert run.record().start == WeightsSource(str(start), sha256(start))
    assert f"--activation {now}" in run.card_file.read_text()
    assert checkpoint.load(run.best_file).spec.activation == now

    ended, run = train("--resume", "--activation", before, "--epochs", 2)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        f"error: {run.path} was started with model activation '{now}', not '{before}': resume with "
        "the same options"
    )
    ended, run = train("--resume", "--epochs", 2)
    assert ended.code == 0, ended.err
    assert run.record().model.activation == now
    assert len(run.metrics_file.read_text().splitlines()) == 3


def test_a_preset_is_trained_with_relu(in_process, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "16.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    ended = in_process(
        "export", "train", "--data", tmp_path / "16.npz", "--model", "cct_2_3x2_32",
        "--image-size", 16, "--activation", "ReLU", "--epochs", 1, "-o", tmp_path / "run",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    run = RunDirectory(tmp_path / "run")
    assert run.record().model.activation == "relu"
    assert "--model cct_2_3x2_32 --image-size 16 --activation relu" in run.card_file.read_text()
    kinds = {layer.kind for layer in cct_export.inspect_model(run.path).layers}
    assert "Gelu" not in kinds
    assert "Activation" in kinds


def test_a_model_teaches_itself_with_another_activation_only(train, tiny):
    model = tiny("gelu")
    ended, run = train("--from", model, "--teacher", model)
    assert ended.code == 2
    assert "has the weights that training starts from: it has nothing to teach" in ended.err
    assert not run.path.exists()
    ended, run = train("--from", model, "--teacher", model, "--activation", "relu", "--epochs", 1)
    assert ended.code == 0, ended.err
    assert run.record().teacher == run.record().start
    ended, run = train("--resume", "--activation", "gelu")
    assert ended.code == 1
    assert "was started with model activation 'relu', not 'gelu'" in ended.err


@pytest.mark.parametrize("spec", [GELU, RELU])
def test_what_a_teacher_has_to_teach_depends_on_the_activation_that_is_trained(spec):
    origin = WeightsSource("tiny", "a" * 64)
    teacher, start = Teacher(CCT(spec), origin), Pretrained(CCT(spec), origin)
    other = RELU if spec == GELU else GELU
    teacher.check(other, start, TrainSpec("x"))
    with pytest.raises(InvalidRequest, match="nothing to teach"):
        teacher.check(spec, start, TrainSpec("x"))


def test_an_architecture_of_an_earlier_version_has_gelu():
    fields = GELU.to_dict()
    del fields["activation"]
    assert ModelSpec(**fields) == GELU
    assert cct_export.load("cct_keras_io").model.spec.activation == "gelu"
