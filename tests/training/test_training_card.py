"""The model card: its front matter as the Hub reads it, and what the tables are made of."""

import json
import re
import shlex

import pytest
from PIL import Image

from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training import card
from cct_export.training.front_matter import training_data
from cct_export.training.run import RunDirectory

LABELS = ("red", "green", "blue")


def _record(model=None, train=None, **more):
    spec = {"name": "tiny", "classes": 3, "labels": LABELS} | (model or {})
    return {
        "model": ModelSpec(**spec).to_dict(),
        "train": TrainSpec("digits").to_dict() | (train or {}),
        "test": {"top1": 0.87654, "top5": 0.9912, "samples": 5000},
        "environment": {"backend": "jax", "keras": "3.15.1"},
    } | more


def _history(epochs, best):
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
def written(tmp_path):
    """Writes a card of a record and a history; returns its text."""

    def write(record, history=None):
        (tmp_path / "run.json").write_text(json.dumps(record))
        run = RunDirectory(tmp_path)
        card.write(run, history or _history(3, 2))
        return run.card_file.read_text()

    return write


def _section(text, title):
    return re.split(r"\n## ", text.partition(f"## {title}\n")[2])[0]


def _rows(section):
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def _words(text):
    (line,) = [line for line in text.splitlines() if line.startswith("cct-export train")]
    return shlex.split(line)


def _on_the_hub(text):
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    return library.ModelCard(text).data


def test_the_hub_reads_what_the_model_is_and_how_good_it_is(written):
    data = _on_the_hub(written(_record()))
    assert (data.library_name, data.pipeline_tag) == ("keras", "image-classification")
    assert "compact-convolutional-transformer" in data.tags
    assert data.metrics == ["accuracy"]
    assert data.model_name == "tiny"
    assert data.license is None
    assert data.datasets is None
    top1, top5 = data.eval_results
    assert (top1.task_type, top1.dataset_type) == ("image-classification", "digits")
    assert (top1.dataset_split, top1.metric_type, top1.metric_value) == (
        "test",
        "accuracy",
        0.87654,
    )
    assert "5,000 images" in top1.metric_name
    assert (top5.metric_type, top5.metric_value) == ("top_5_accuracy", 0.9912)


@pytest.mark.parametrize(
    "name", ['say "cheese"', "a: b # c", "'", "{x}", "- ", "\x1b[31m\n", "ü 猫"]
)
def test_any_name_is_one_string_of_the_front_matter(written, name):
    data = _on_the_hub(written(_record({"name": name}, {"data": f"somewhere/{name}x"})))
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
def test_only_data_that_the_hub_has_is_called_by_its_name_there(data, classes, identifier, public):
    found = training_data(data, classes)
    assert (found.identifier, found.public) == (identifier, public)


def test_a_public_data_set_is_named_in_the_front_matter(written):
    ten = [str(number) for number in range(10)]
    data = _on_the_hub(written(_record({"classes": 10, "labels": ten}, {"data": "cifar10"})))
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.eval_results[0].dataset_name == "CIFAR-10"


def test_every_key_of_the_recipe_is_a_row_even_one_that_is_not_known_yet(written):
    new = {"mixup": 0.8, "ema": True, "clip_norm": None, "steps": [1, 2], "optimizer": "lion"}
    record = _record(train=new)
    rows = dict(_rows(_section(written(record), "Hyperparameters")))
    assert set(rows) == {key.replace("_", " ") for key in record["train"]}
    assert (rows["mixup"], rows["ema"], rows["clip norm"]) == ("0.8", "yes", "none")
    assert (rows["steps"], rows["optimizer"], rows["freeze"]) == ("1, 2", "lion", "none")


def test_the_command_asks_for_all_that_is_not_as_usual_even_what_is_not_known_yet(written):
    new = {"ema": True, "flip": False, "clip_norm": None, "epochs": 300}
    words = _words(written(_record(train=new | {"freeze": ["head", "blocks:1"]})))
    assert "--weight-decay" not in words  # it is the usual one
    assert not any(word.endswith("clip-norm") for word in words)
    assert {"--ema", "--no-flip"} < set(words)
    for option, value in (
        ("--epochs", "300"),
        ("--freeze", "head,blocks:1"),
    ):
        assert words[words.index(option) + 1] == value


def test_the_metrics_are_of_the_first_the_best_the_last_and_every_tenth_epoch(written):
    section = _section(written(_record(), _history(34, 17)), "Training metrics")
    rows = _rows(section)
    assert [row[0] for row in rows] == ["1", "10", "17 (best)", "20", "30", "34"]
    assert rows[2][1:] == ["0.1471", "90.00%", "95.00%", "5.882e-05"]
    assert "| epoch | loss | validation top-1 | validation top-5 | learning rate |" in section


def test_a_run_of_one_epoch_has_one_row(written):
    rows = _rows(_section(written(_record(), _history(1, 1)), "Training metrics"))
    assert [row[0] for row in rows] == ["1 (best)"]


def test_names_of_the_users_do_not_break_the_tables(written):
    text = written(_record({"labels": ("a|b", "<img src=x>", "`")}, {"data": "x|y/<b>"}))
    rows = dict(_rows(_section(text, "Hyperparameters")))
    assert rows["data"] == r"x\|y/\<b>"
    assert r"Classes: a\|b, \<img src=x>, \`." in text
    assert _words(text)[_words(text).index("--data") + 1] == "x|y/<b>"


def test_the_pictures_that_the_card_shows_are_there_or_named_as_the_run_writes_them(
    written, tmp_path
):
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", written(_record()))
    assert sorted(shown) == ["curves.png", "model.png"]
    assert RunDirectory(tmp_path).curves_file.name in shown
    with Image.open(tmp_path / "model.png") as picture:
        assert picture.format == "PNG"


def test_use_and_limits_are_said(written):
    text = written(_record({"channels": 1, "image_size": 28}))
    assert "raw grey pixels (0-255, 28×28)" in text
    assert "cct-export tflite . --quantize int8" in _section(text, "Intended use")
    assert "No study of bias was made" in _section(text, "Limits")


def test_what_was_fine_tuned_is_said(written):
    start = {"source": "cct_keras_io", "sha256": "0123456789abcdef"}
    text = written(_record(start=start))
    rows = dict(_rows(_section(text, "Hyperparameters")))
    assert rows["fine-tuned from"] == "cct_keras_io (sha256 0123456789ab)"
    assert "--model" not in _words(text)


@pytest.mark.parametrize("name", ["keras-io", "paper", "short", "finetune"])
@pytest.mark.parametrize(
    "knobs",
    [{}, {"flip": False, "mixup": 0.3, "optimizer": "sgd", "epochs": 9, "ema": 0.0, "seed": 4}],
)
def test_the_command_is_understood_as_the_recipe_that_it_is_of(name, knobs):
    from cct_export.commands.train import train as command
    from cct_export.specs.train import knobs as known
    from cct_export.training.recipes import resolve

    recipe = resolve(name, "my data", knobs)
    words = shlex.split(card.command(ModelSpec(name="tiny").to_dict(), recipe.to_dict()))
    # The names as the program has them: click keeps the option of the first context.
    said = command.make_context("train", words[2:], help_option_names=["-h", "--help"]).params
    overrides = {knob.name: said[knob.name] for knob in known() if said[knob.name] is not None}
    assert resolve(said["recipe"] or "keras-io", said["data"], overrides) == recipe


def test_the_command_says_by_options_what_a_file_said(tmp_path):
    from cct_export.training.recipes import resolve

    (tmp_path / "mine.toml").write_text('recipe = "short"\nmixup = 0.25\n')
    recipe = resolve(str(tmp_path / "mine.toml"), "digits")
    line = card.command(ModelSpec(name="tiny").to_dict(), recipe.to_dict())
    assert "mine.toml" not in line
    assert "--mixup 0.25" in line
    assert "--optimizer muon" in line
