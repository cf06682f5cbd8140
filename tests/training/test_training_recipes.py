"""Recipes: names, files, what is said otherwise, and what is refused."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.errors import InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.specs.train import knobs
from cct_export.training.recipes import RECIPES, resolve


@pytest.fixture
def written(tmp_path):
    """Writes a recipe's file and returns its path."""

    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_run_that_can_be(name):
    recipe = resolve(name, "digits")
    assert (recipe.recipe, recipe.data) == (name, "digits")
    assert {key: getattr(recipe, key) for key in RECIPES[name]} == RECIPES[name]


def test_the_recipe_of_the_example_is_what_is_not_said_otherwise():
    assert resolve("keras-io", "digits") == TrainSpec("digits")
    assert resolve("keras-io", "x", {"epochs": 7}).epochs == 7


def test_a_file_begins_with_a_recipe_and_options_come_last(written):
    path = written('recipe = "short"\nepochs = 5\nmixup = 1\nflip = false\n')
    recipe = resolve(path, "digits", {"epochs": 9})
    assert recipe.recipe == "mine.toml"
    assert (recipe.epochs, recipe.mixup, recipe.flip) == (9, 1.0, False)
    assert recipe.optimizer == RECIPES["short"]["optimizer"]
    assert isinstance(recipe.mixup, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"no recipe has a key 'epoch': did you mean epochs\?"),
        ("zzz = 3", r"no recipe has a key 'zzz': there is epochs, batch"),
        ("freeze = []", "no recipe has a key 'freeze'"),
        ("[train]\nepochs = 3", "no recipe has a key 'train'"),
        ('epochs = "3"', "epochs is of type int, not '3'"),
        ("epochs = 2.5", r"epochs is of type int, not 2\.5"),
        ("flip = 1", "flip is of type bool, not 1"),
        ("mixup = true", "mixup is of type float, not True"),
        ("epochs = 0", "epochs must be at least 1, not 0"),
        ("learning_rate = 0", r"learning_rate must be above 0, not 0\.0"),
        ("learning_rate = nan", "learning_rate must be a number, not nan"),
        ("weight_decay = inf", "weight_decay must be a number, not inf"),
        ("label_smoothing = 1.0", r"label_smoothing must be below 1, not 1\.0"),
        ("erasing = 1.5", r"erasing must be at most 1, not 1\.5"),
        ('optimizer = "adam"', "optimizer is adamw or muon or sgd, not 'adam'"),
        ('recipe = "long"', "recipe is keras-io, paper, short, finetune, not 'long'"),
        ("epochs = ", "cannot be read as TOML"),
    ],
)
def test_what_a_file_cannot_say_is_refused_in_one_line(written, text, message):
    with pytest.raises(InvalidRequest, match=message) as refused:
        resolve(written(text), "digits")
    assert "\n" not in str(refused.value)


def test_an_unknown_name_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no recipe is called 'long': there is keras-io, "):
        resolve("long", "digits")
    with pytest.raises(InvalidRequest, match=r"none\.toml cannot be read as TOML"):
        resolve(str(tmp_path / "none.toml"), "digits")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match=r"bytes\.toml cannot be read as TOML"):
        resolve(str(tmp_path / "bytes.toml"), "digits")


@given(st.text(max_size=60))
def test_any_text_in_a_file_is_a_recipe_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        assert resolve(str(path), "digits").data == "digits"
    except InvalidRequest as error:
        assert str(error)


def test_every_knob_is_an_option_and_says_what_it_does():
    from cct_export.commands.train import train as command

    options = {one.name: one for one in command.params if isinstance(one, click.Option)}
    assert len(knobs()) > 20
    for knob in knobs():
        assert options[knob.name].help == knob.metadata["help"], knob.name
        assert options[knob.name].default in (None, False) or knob.name == "epochs"


def test_an_option_is_what_the_run_is_recorded_with(in_process, tmp_path):
    ended = in_process(
        "export", "train", "--data", "digits", "--recipe", "zzz", "-o", tmp_path / "run"
    )
    assert ended.code == 2
    assert "no recipe is called 'zzz'" in ended.err
    ended = in_process(
        "export", "train", "--data", "digits", "--ema", "1.0", "-o", tmp_path / "run"
    )
    assert ended.code == 2
    assert "ema must be below 1, not 1.0" in ended.err
    assert not (tmp_path / "run").exists()


def test_a_knob_that_is_none_is_refused_from_python_too():
    with pytest.raises(InvalidRequest, match=r"recipe short: .* key 'epoch': did you mean epochs"):
        resolve("short", "digits", {"epoch": 3})


def test_one_part_to_freeze_may_be_a_string():
    assert resolve("finetune", "x", {"freeze": "tokenizer"}).freeze == ("tokenizer",)
    assert TrainSpec("x", freeze="tokenizer,blocks:1").freeze == ("tokenizer", "blocks:1")


@pytest.mark.parametrize("knob", ["dropout", "stochastic_depth"])
@pytest.mark.parametrize("value", [-0.1, -2])
def test_a_rate_below_zero_is_no_word_for_as_the_model_has_it(knob, value):
    with pytest.raises(InvalidRequest, match=f"{knob} must be 0 or more, or -1 as the model has"):
        resolve("short", "digits", {knob: value})
    assert getattr(resolve("short", "digits", {knob: -1}), knob) == -1
