"""The model card: its front matter as the Hub reads it, its tables, and its command."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cct_export.specs import ModelSpec, TrainSpec
from cct_export.specs.train import hyperparameters
from cct_export.training import card
from cct_export.training.card import training_data
from cct_export.training.recipes import resolve
from cct_export.training.run import Accuracy, RunDirectory, RunRecord, WeightsSource

RECORD = RunRecord(
    train=TrainSpec("digits"),
    model=ModelSpec(name="tiny", classes=3, labels=("red", "green", "blue")),
    test=Accuracy(0.87654, 0.9912, 5000),
    environment={"backend": "jax", "keras": "3.15.1"},
)


def _record(model=None, train=None, start=None, teacher=None):
    return replace(
        RECORD,
        model=replace(RECORD.model, **(model or {})),
        train=replace(RECORD.train, **(train or {})),
        start=start,
        teacher=teacher,
    )


def _metrics(epochs, best):
    return [
        {
            "epoch": epoch,
            "loss": 2.5 / epoch,
            "val_accuracy": 0.9 if epoch == best else 0.5,
            "val_top5": 0.95,
            "learning_rate": 1e-3 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the card of a record and metrics into a folder; returns its text."""
    # The diagram has tests of its own.
    monkeypatch.setattr("cct_export.training.plots.draw_architecture", lambda *_: None)

    def write(record=RECORD, metrics=None, name="my run"):
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        run.record_file.write_text(record.to_json())
        card.write(run, metrics or _metrics(3, 2))
        return run.card_file.read_text()

    return write


def _section(text, title):
    return re.split(r"\n## ", text.partition(f"## {title}\n")[2])[0]


def _rows(section):
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def _command(text):
    (line,) = [line for line in text.splitlines() if line.startswith("cct-export train")]
    return shlex.split(line)


def _front_matter(text):
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    return library.ModelCard(text).data


def test_the_hub_reads_model_and_accuracy_from_the_front_matter(written):
    data = _front_matter(written())
    assert (data.library_name, data.pipeline_tag) == ("keras", "image-classification")
    assert "compact-convolutional-transformer" in data.tags
    assert data.metrics == ["accuracy"]
    assert data.model_name == "my run"
    assert data.license is None
    assert data.datasets is None
    top1, top5 = data.eval_results
    assert (top1.task_type, top1.dataset_type) == ("image-classification", "digits")
    assert (top1.dataset_split, top1.metric_type) == ("test", "accuracy")
    assert top1.metric_value == 0.87654
    assert "5,000 images" in top1.metric_name
    assert (top5.metric_type, top5.metric_value) == ("top_5_accuracy", 0.9912)


@pytest.mark.parametrize(
    "name", ['say "cheese"', "a: b # c", "'", "{x}", "- ", "\x1b[31m\n", "ü 猫"]
)
def test_any_name_is_one_string_of_the_front_matter(written, name):
    data = _front_matter(written(_record(train={"data": f"somewhere/{name}x"}), name=name))
    assert data.model_name == "".join(c if c.isprintable() else "\ufffd" for c in name)
    assert data.eval_results[0].dataset_name.endswith("x")


@pytest.mark.parametrize(
    ("data", "classes", "identifier", "public"),
    [
        ("cifar10", 10, "uoft-cs/cifar10", True),
        ("cifar100", 100, "uoft-cs/cifar100", True),
        ("./cifar10", 10, "cifar10", False),
        ("pictures/cifar100.npz", 100, "cifar100", False),
        ("cifar10", 3, "cifar10", False),
        ("my data/old cats & dogs", 2, "old-cats-dogs", False),
        ("../..", 2, "data", False),
    ],
)
def test_only_datasets_of_the_hub_have_its_identifier(data, classes, identifier, public):
    dataset = training_data(data, classes)
    assert (dataset.identifier, dataset.public) == (identifier, public)


def test_a_public_dataset_is_named_in_the_front_matter(written):
    labels = tuple(str(number) for number in range(10))
    data = _front_matter(written(_record({"classes": 10, "labels": labels}, {"data": "cifar10"})))
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.eval_results[0].dataset_name == "CIFAR-10"


def test_every_field_of_the_recipe_is_a_row(written):
    train = {"mixup": 0.8, "optimizer": "sgd", "freeze": ("head", "norm")}
    record = _record(train=train, teacher=WeightsSource("big.keras", "0123456789abcdef"))
    rows = dict(_rows(_section(written(record), "Hyperparameters")))
    names = {name.replace("_", " ") for name in record.train.to_dict()}
    assert set(rows) == names | {"teacher"}
    assert (rows["mixup"], rows["flip"], rows["optimizer"]) == ("0.8", "yes", "sgd")
    assert rows["freeze"] == "head, norm"


def test_the_card_is_titled_by_the_run_and_names_the_architecture(written, tmp_path, monkeypatch):
    text = written(name="a|b")
    assert "\n# a\\|b\n\nAn image classifier: tiny, a Compact" in text
    monkeypatch.chdir(tmp_path / "a|b")
    card.write(RunDirectory(Path()), _metrics(3, 2))
    assert Path("README.md").read_text() == text


def test_hyperparameters_are_shown_as_the_run_used_them(written):
    record = _record({"dropout": 0.2, "stochastic_depth": 0.05}, {"epochs": 5, "warmup": 3.0})
    rows = dict(_rows(_section(written(record), "Hyperparameters")))
    assert (rows["dropout"], rows["stochastic depth"], rows["warmup"]) == ("0.2", "0.05", "0.5")
    off = ("clip norm", "ema", "crop", "rand augment", "mixup", "cutmix", "erasing", "patience")
    without_effect = ("magnitude", "mix probability", "final rate")
    assert {rows[name] for name in (*off, *without_effect)} == {"none"}
    assert (rows["jit"], rows["label smoothing"], rows["seed"]) == ("left to Keras", "0.1", "0")


def test_hyperparameters_of_augmentation_and_schedule_in_use_are_shown(written):
    train = {"rand_augment": 2, "cutmix": 1.0, "schedule": "cosine", "patience": 4, "jit": "off"}
    rows = dict(_rows(_section(written(_record(train=train)), "Hyperparameters")))
    shown = ("rand augment", "magnitude", "mix probability", "final rate", "patience", "jit")
    assert [rows[name] for name in shown] == ["2", "9.0", "1.0", "0.01", "4", "off"]


@pytest.mark.parametrize(("block", "gelu"), [("paper", "exact"), ("keras", "tanh")])
def test_the_gelu_of_the_block_is_shown(written, block, gelu):
    record = _record({"block": block, "head_dim": 64})
    rows = dict(_rows(_section(written(record), "Model")))
    assert (rows["activation"], rows["gelu"]) == ("gelu", gelu)


def test_a_model_with_relu_has_no_form_of_gelu(written):
    text = written(_record({"activation": "relu"}))
    rows = dict(_rows(_section(text, "Model")))
    assert rows["activation"] == "relu"
    assert "gelu" not in rows
    assert _command(text)[_command(text).index("--activation") + 1] == "relu"
    assert "--activation" not in card.command(RECORD)


@pytest.mark.parametrize("name", ["my run", "a|b*", 'say "cheese"'])
def test_in_a_repository_the_card_is_titled_by_its_name(written, name):
    text = card.for_repository(written(name=name), "me/cats")
    assert "write `hf:me/cats` in place of the dot" in text
    # A name that YAML escapes stays.
    assert ("\n# me/cats\n" in text) == ('\n- name: "me/cats"\n' in text) == ('"' not in name)


def test_a_title_that_was_changed_by_hand_stays_in_a_repository(written):
    text = written().replace("# my run\n", "# Cats\n")
    assert card.for_repository(text, "me/cats") == text.replace("OWNER/NAME", "me/cats")


def test_the_command_has_every_option_that_is_not_the_default(written):
    train = {"flip": False, "epochs": 300, "freeze": ("head", "blocks:1")}
    words = _command(written(_record(train=train)))
    assert "--weight-decay" not in words
    assert "--no-flip" in words
    for option, value in (("--epochs", "300"), ("--freeze", "head,blocks:1")):
        assert words[words.index(option) + 1] == value


def test_metrics_are_of_the_first_best_last_and_every_tenth_epoch(written):
    section = _section(written(metrics=_metrics(34, 17)), "Training metrics")
    rows = _rows(section)
    assert [row[0] for row in rows] == ["1", "10", "17 (best)", "20", "30", "34"]
    assert rows[2][1:] == ["0.1471", "90.00%", "95.00%", "5.882e-05"]
    assert "| epoch | loss | validation top-1 | validation top-5 | learning rate |" in section


def test_a_run_of_one_epoch_has_one_row_of_metrics(written):
    rows = _rows(_section(written(metrics=_metrics(1, 1)), "Training metrics"))
    assert [row[0] for row in rows] == ["1 (best)"]


def test_names_are_escaped_in_tables(written):
    text = written(_record({"labels": ("a|b", "<img src=x>", "`")}, {"data": "x|y/<b>"}))
    rows = dict(_rows(_section(text, "Hyperparameters")))
    assert rows["data"] == r"x\|y/\<b>"
    assert r"Classes: a\|b, \<img src=x>, \`." in text
    assert _command(text)[_command(text).index("--data") + 1] == "x|y/<b>"


def test_the_pictures_of_the_card_are_in_the_run_directory(finished):
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", finished.run.card_file.read_text())
    assert sorted(shown) == ["curves.png", "model.png"]
    for name in shown:
        with Image.open(finished.run.path / name) as picture:
            assert picture.format == "PNG"


def test_the_card_has_use_and_limitations(written):
    text = written(_record({"channels": 1, "image_size": 28}))
    assert "raw grayscale pixels (0-255, 28×28)" in text
    assert "cct-export tflite . --quantize int8" in _section(text, "Intended use")
    assert "Bias was not studied" in _section(text, "Limitations")


def test_the_card_names_the_pretrained_weights(written):
    text = written(_record(start=WeightsSource("cct_keras_io", "0123456789abcdef")))
    rows = dict(_rows(_section(text, "Hyperparameters")))
    assert rows["fine-tuned from"] == "cct_keras_io (sha256 0123456789ab)"
    options = dict(zip(_command(text)[2::2], _command(text)[3::2], strict=True))
    assert options["--from"] == "cct_keras_io"
    assert (options["--image-size"], options["--stochastic-depth-mode"]) == ("32", "sample")
    assert options["--activation"] == "gelu"
    assert "--model" not in options


def test_the_card_names_the_teacher(written):
    teacher = WeightsSource("cct_2_3x2_32", "0123456789abcdef")
    text = written(_record(teacher=teacher, train={"temperature": 4.0}))
    rows = dict(_rows(_section(text, "Hyperparameters")))
    assert rows["teacher"] == "cct_2_3x2_32 (sha256 0123456789ab)"
    assert (rows["teacher weight"], rows["temperature"]) == ("0.9", "4.0")
    options = dict(zip(_command(text)[2::2], _command(text)[3::2], strict=True))
    assert options["--teacher"] == "cct_2_3x2_32"
    assert options["--temperature"] == "4.0"


def test_the_card_of_a_run_without_a_teacher_has_no_options_of_one(written):
    assert "teacher" not in written(_record(train={"temperature": 4.0}))


@pytest.mark.parametrize("name", ["keras-io", "paper", "short", "finetune"])
@pytest.mark.parametrize(
    "overrides",
    [{}, {"flip": False, "mixup": 0.3, "optimizer": "sgd", "epochs": 9, "ema": 0.0, "seed": 4}],
)
def test_the_command_parses_to_the_same_recipe(name, overrides):
    from cct_export.commands.train import train as command

    recipe = resolve(name, "my data", overrides)
    words = shlex.split(card.command(replace(RECORD, train=recipe)))
    # The help options are those of the program: click keeps the option of the first context.
    given = command.make_context("train", words[2:], help_option_names=["-h", "--help"]).params
    names = [hyperparameter.name for hyperparameter in hyperparameters()]
    parsed = {name: given[name] for name in names if given[name] is not None}
    assert resolve(given["recipe"] or "keras-io", given["data"], parsed) == recipe


def test_the_command_has_options_in_place_of_a_toml_file(tmp_path):
    (tmp_path / "mine.toml").write_text('recipe = "short"\nmixup = 0.25\n')
    recipe = resolve(str(tmp_path / "mine.toml"), "digits")
    line = card.command(replace(RECORD, train=recipe))
    assert "mine.toml" not in line
    assert "--mixup 0.25" in line
    assert "--optimizer muon" in line
