"""Fine-tuning: what a run begins with is taken over, recorded, and compared when it goes on."""

import json
import shlex

import keras
import numpy as np
import pytest

from cct_export.files import sha256
from cct_export.model import checkpoint
from cct_export.training.run import RunDirectory

LABELS = ("even", "odd")


@pytest.fixture(scope="module")
def parities(tmp_path_factory, digit_images):
    """An ``.npz`` of digits in two classes, at the size of ``digits_run``; and one of 40 pixels."""
    folder = tmp_path_factory.mktemp("parities")
    pixels, labels = digit_images
    for size in (32, 40):
        scale = np.arange(size) * 32 // size
        images = pixels[:, scale][:, :, scale]
        np.savez(
            folder / f"{size}.npz", x_train=images[:300], y_train=labels[:300] % 2,
            x_test=images[300:], y_test=labels[300:] % 2, classes=np.array(LABELS),
        )  # fmt: skip
    return folder


@pytest.fixture
def tune(in_process, digits_run, parities, tmp_path):
    """Runs ``cct-export train --from`` into ``tmp_path/NAME``; returns how it ended and the run."""

    def run(name, *more, size=32, epochs=1, start=digits_run, recipe="keras-io"):
        begun = () if start is None else ("--from", start)
        begun += () if recipe is None else ("--recipe", recipe)
        ended = in_process(
            "export", "train", *begun, "--data", parities / f"{size}.npz", "--epochs", epochs,
            "--batch", 64, "-o", tmp_path / name, *more,
        )  # fmt: skip
        return ended, RunDirectory(tmp_path / name)

    return run


def _weights(path):
    model = checkpoint.load(path)
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def test_frozen_parts_stay_the_rest_learns_and_the_artifacts_have_the_new_labels(
    tune, in_process, digits_model, digits_run, tmp_path
):
    more = ("--freeze", "tokenizer, positions,blocks:1", "--learning-rate", 0.003)
    ended, run = tune("tuned", *more, "--weight-decay", 0, epochs=3)
    assert ended.code == 0, ended.err
    assert "a new head for 2 classes in place of 10" in ended.err
    record = run.record()
    assert record["start"] == {"source": str(digits_run), "sha256": sha256(digits_model)}
    assert record["train"]["freeze"] == ["tokenizer", "positions", "blocks:1"]
    assert (record["train"]["learning_rate"], record["train"]["weight_decay"]) == (0.003, 0)
    assert record["test"]["top1"] > 0.75
    before, after = _weights(digits_model), _weights(run.best_file)
    for name in ("tokenizer", "position_embedding", "block_0"):
        assert all(map(np.array_equal, before[name], after[name])), name
    assert not np.array_equal(before["block_1"][2], after["block_1"][2])
    assert [weight.shape for weight in after["logits"]] == [(32, 2), (2,)]
    model = checkpoint.load(run.best_file)
    assert len(model.trainable_variables) == len(model.weights), "a checkpoint has nothing frozen"

    for format in ("tflite", "onnx"):
        path = tmp_path / f"m.{format}"
        ended = in_process("export", format, run.path, "-o", path, "--json", "-")
        assert ended.code == 0, ended.err
        assert ended.record["artifact"]["labels"] == list(LABELS)


def test_a_checkpoint_is_tuned_at_another_resolution(tune, in_process, digits_model, tmp_path):
    ended, run = tune("large", "--image-size", 40, size=40, recipe=None)
    assert ended.code == 0, ended.err
    assert run.record()["train"]["recipe"] == "finetune"
    assert "positions of 8×8 tokens interpolated to 10×10" in ended.err
    model = checkpoint.load(run.best_file)
    assert checkpoint.image_shape(model) == (40, 40, 3)
    assert model.spec.labels == LABELS
    path = tmp_path / "m.tflite"
    ended = in_process("export", "tflite", run.path, "-o", path, "--json", "-")
    assert ended.code == 0, ended.err
    assert ended.record["artifact"]["input"]["shape"] == [1, 40, 40, 3]


def test_the_card_says_what_it_was_begun_from_and_how_to_do_it_again(tune, digits_run):
    ended, run = tune("carded", "--freeze", "blocks", "--learning-rate", 0.01)
    assert ended.code == 0, ended.err
    card = run.card_file.read_text()
    assert f"| fine-tuned from | {digits_run} (sha256 " in card
    (line,) = [line for line in card.splitlines() if line.startswith("cct-export train")]
    words = shlex.split(line)
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--from"] == str(digits_run)
    assert (options["--freeze"], options["--learning-rate"]) == ("blocks", "0.01")
    assert (options["--image-size"], options["--stochastic-depth-mode"]) == ("32", "sample")
    assert "--model" not in options


def test_a_resumed_fine_tuning_ends_where_an_unbroken_one_does(tune):
    more = ("--freeze", "tokenizer", "--stochastic-depth-mode", "batch")
    ended, whole = tune("whole", *more, epochs=2)
    assert ended.code == 0, ended.err
    ended, broken = tune("broken", *more, epochs=1)
    assert ended.code == 0, ended.err
    ended, broken = tune("broken", *more, "--resume", epochs=2)
    assert ended.code == 0, ended.err
    assert whole.record()["model"]["stochastic_depth_mode"] == "batch"
    assert broken.record()["start"] == whole.record()["start"]
    assert broken.metrics_file.read_text() == whole.metrics_file.read_text()
    with np.load(broken.state_file) as one, np.load(whole.state_file) as other:
        assert sorted(one) == sorted(other)
        for name in one:
            assert np.array_equal(one[name], other[name]), name


@pytest.fixture
def refused(tune):
    """Runs what must end in one line and make no run directory; returns the line."""

    def run(*more, code=1, **options):
        ended, found = tune("none", *more, **options)
        assert ended.code == code, ended.err
        lines = ended.err.splitlines()
        assert len(lines) == 1, ended.err
        assert "this is a bug" not in ended.err
        assert not found.path.exists()
        return ended.err

    return run


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--freeze", ","), "no part is called ',': there is tokenizer, positions, "),
        (("--freeze", ""), "no part is called '': there is tokenizer, positions, "),
        (("--freeze", "magic"), "no part is called 'magic': there is tokenizer, positions, "),
        (("--freeze", "blocks:9"), "'blocks:9' of 2 blocks"),
        (("--freeze", "head"), "the head cannot be frozen: it is new"),
    ],
)
def test_what_cannot_be_frozen_is_refused(refused, more, message):
    assert message in refused(*more, code=2)


def test_everything_frozen_is_refused(in_process, digits_run, tmp_path):
    parts = "tokenizer,positions,blocks,norm,pooling,head"
    arguments = ("--from", digits_run, "--data", "digits", "--freeze", parts)
    ended = in_process("export", "train", *arguments, "-o", tmp_path / "none")
    assert ended.code == 2
    assert ended.err == f"error: --freeze {parts} leaves nothing to train\n"
    assert not (tmp_path / "none").exists()


def test_freezing_what_was_never_trained_is_refused(refused):
    line = refused("--freeze", "blocks", start=None, code=2)
    assert "only what was trained can be frozen: name the checkpoint" in line


def test_a_preset_without_weights_is_no_start(refused):
    line = refused(start="cct_4_3x2_32")
    assert line.startswith("error: preset cct_4_3x2_32 ships no weights")


def test_a_model_that_is_no_cct_is_no_start(refused, tmp_path):
    cnn = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    cnn.save(tmp_path / "cnn.keras")
    line = refused(start=tmp_path / "cnn.keras")
    assert line.endswith("cnn.keras is no CCT (Sequential): fine-tuning begins with one\n")


def test_a_size_too_small_for_the_tokenizer_is_refused(refused):
    line = refused("--image-size", 3)
    assert "images of 3×3 are too small for small: convolution 2 of 2 looks at 3 pixels" in line
    line = refused("--image-size", 3, "--model", "cct_keras_io", start=None)
    assert "images of 3×3 are too small for cct_keras_io" in line


def test_a_preset_and_a_checkpoint_are_not_both_taken(in_process, digits_run, tmp_path):
    arguments = ("--model", "cct_2_3x2_32", "--from", digits_run, "-o", tmp_path / "none")
    ended = in_process("export", "train", *arguments)
    assert ended.code == 2
    assert "--from brings its architecture: leave --model out" in ended.err
    import cct_export
    from cct_export.errors import InvalidRequest
    from cct_export.specs import TrainSpec

    with pytest.raises(InvalidRequest, match="give either a model or a start"):
        cct_export.train(
            tmp_path / "none", recipe=TrainSpec("digits"), model="cct_2_3x2_32", start=digits_run
        )
    assert not (tmp_path / "none").exists()


def test_resuming_from_other_weights_is_refused_naming_both(tune, tmp_path):
    ended, run = tune("run")
    assert ended.code == 0, ended.err
    before = run.record_file.read_bytes()
    other, found = tune("run", "--resume", start="cct_keras_io")
    assert other.code == 1
    assert len(other.err.splitlines()) == 1
    assert "was begun from " in other.err
    assert ", not from cct_keras_io (" in other.err
    none, found = tune("run", "--resume", "--model", "cct_keras_io", start=None)
    assert none.code == 1
    assert "not from random weights: resume with that --from" in none.err
    frozen, found = tune("run", "--resume", "--freeze", "blocks:1")
    assert frozen.code == 1
    assert "begun with train freeze [], not ['blocks:1']" in frozen.err
    assert found.record_file.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["cct_2_3x2_32_sine", pytest.param("cct_7_7x2_224", marks=pytest.mark.slow)]
)
def test_a_preset_of_the_paper_trains_at_another_size(in_process, parities, tmp_path, name):
    arguments = ("--model", name, "--data", parities / "40.npz", "--image-size", 40)
    ended = in_process(
        "export", "train", *arguments, "--epochs", 1, "--batch", 100, "-o", tmp_path / "run"
    )
    assert ended.code == 0, ended.err
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["model"]["name"], record["model"]["image_size"]) == (name, 40)
    assert f"--model {name} --image-size 40" in (tmp_path / "run/README.md").read_text()
