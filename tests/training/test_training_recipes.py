"""Recipes: built-in ones, TOML files, overrides, and the options of a run to resume."""

from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import TINY

from cct_export.errors import InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.specs.train import hyperparameters
from cct_export.training.recipes import RECIPES, TrainOptions, resolve
from cct_export.training.run import RunRecord, WeightsSource


@pytest.fixture
def toml(tmp_path):
    """Writes the TOML file of a recipe and returns its path."""

    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid(name):
    recipe = resolve(name, "digits")
    assert (recipe.recipe, recipe.data) == (name, "digits")
    assert {key: getattr(recipe, key) for key in RECIPES[name]} == RECIPES[name]


def test_the_recipe_of_the_example_is_the_default():
    assert resolve("keras-io", "digits") == TrainSpec("digits")
    assert resolve("keras-io", "x", {"epochs": 7}).epochs == 7


def test_a_file_extends_a_recipe_and_overrides_take_precedence(toml):
    path = toml('recipe = "short"\nepochs = 5\nmixup = 1\nflip = false\n')
    recipe = resolve(path, "digits", {"epochs": 9})
    assert recipe.recipe == "mine.toml"
    assert (recipe.epochs, recipe.mixup, recipe.flip) == (9, 1.0, False)
    assert recipe.optimizer == RECIPES["short"]["optimizer"]
    assert isinstance(recipe.mixup, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"no recipe has a key 'epoch': did you mean epochs\?"),
        ("zzz = 3", r"no recipe has a key 'zzz': choose from epochs, batch"),
        ("freeze = []", "no recipe has a key 'freeze'"),
        ("[train]\nepochs = 3", "no recipe has a key 'train'"),
        ('epochs = "3"', "epochs is of type int, not '3'"),
        ("epochs = 2.5", r"epochs is of type int, not 2\.5"),
        ("flip = 1", "flip is of type bool, not 1"),
        ("mixup = true", "mixup is of type float, not True"),
        ("epochs = 0", "epochs must be at least 1, not 0"),
        ("epochs = 1" + "0" * 400, "epochs must be at most 1000000, not a number of 401 digits"),
        ("ema = 1" + "0" * 400, "ema must be below 1, not a number of 401 digits"),
        (
            "epochs = 1" + "0" * 5000,
            "cannot be read as TOML: Exceeds the limit .* 5001 digits$",
        ),
        ("ema = true", "ema is of type float, not True"),
        ("ema = 2020-01-01", "ema is of type float, not datetime"),
        ("learning_rate = 0", r"learning_rate must be above 0, not 0\.0"),
        ("learning_rate = nan", "learning_rate must be a number, not nan"),
        ("weight_decay = inf", "weight_decay must be a number, not inf"),
        ("label_smoothing = 1.0", r"label_smoothing must be below 1, not 1\.0"),
        ("erasing = 1.5", r"erasing must be at most 1, not 1\.5"),
        ('optimizer = "adam"', "no optimizer is called 'adam': did you mean adamw"),
        ('recipe = "long"', "no recipe is called 'long': choose from keras-io, paper, "),
        ("epochs = ", "cannot be read as TOML"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(toml, text, message):
    with pytest.raises(InvalidRequest, match=message) as refused:
        resolve(toml(text), "digits")
    assert "\n" not in str(refused.value)


def test_an_unknown_recipe_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no recipe is called 'long': choose from keras-io, "):
        resolve("long", "digits")
    with pytest.raises(InvalidRequest, match=r"no such recipe: .*none\.toml"):
        resolve(str(tmp_path / "none.toml"), "digits")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match=r"bytes\.toml cannot be read as TOML"):
        resolve(str(tmp_path / "bytes.toml"), "digits")


@given(st.text(max_size=60))
def test_a_file_with_any_text_is_a_recipe_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        assert resolve(str(path), "digits").data == "digits"
    except InvalidRequest as error:
        assert str(error)


def test_every_hyperparameter_is_an_option_with_its_help():
    from cct_export.commands.train import train as command

    options = {option.name: option for option in command.params if isinstance(option, click.Option)}
    assert len(hyperparameters()) > 20
    for hyperparameter in hyperparameters():
        option = options[hyperparameter.name]
        assert option.help == hyperparameter.help, hyperparameter.name
        assert option.default in (None, False)


def test_an_invalid_recipe_or_value_makes_no_run_directory(in_process, tmp_path):
    for option, value, message in (
        ("--recipe", "zzz", "no recipe is called 'zzz'"),
        ("--ema", "1.0", "ema must be below 1, not 1.0"),
    ):
        ended = in_process("export", "train", option, value, "-o", tmp_path / "run")
        assert ended.code == 2
        assert message in ended.err
        assert not (tmp_path / "run").exists()


def test_an_unknown_hyperparameter_is_refused_from_python():
    with pytest.raises(InvalidRequest, match=r"recipe short: .* key 'epoch': did you mean epochs"):
        resolve("short", "digits", {"epoch": 3})


def test_parts_to_freeze_may_be_one_string():
    assert resolve("finetune", "x", {"freeze": "tokenizer"}).freeze == ("tokenizer",)
    assert TrainSpec("x", freeze="tokenizer,blocks:1").freeze == ("tokenizer", "blocks:1")


@pytest.mark.parametrize("name", ["dropout", "stochastic_depth"])
@pytest.mark.parametrize("value", [-0.1, -2])
def test_the_only_negative_rate_is_that_of_the_model(name, value):
    with pytest.raises(InvalidRequest, match=f"{name} must be 0 or more, or -1 for that of the mo"):
        resolve("short", "digits", {name: value})
    assert getattr(resolve("short", "digits", {name: -1}), name) == -1


def _record(start=None, **train):
    return RunRecord(resolve("short", "digits", train), TINY, start)


def test_options_that_are_not_given_are_those_of_the_resumed_run():
    record = _record(mixup=0.2, recipe="mine.toml")
    options = TrainOptions().resume(record)
    assert options.train_spec() == record.train
    assert (options.model, options.pretrained) == ("tiny", None)
    assert (options.image_size, options.stochastic_depth_mode) == (8, "sample")
    assert options.activation == "gelu"


def test_options_that_are_given_take_precedence_over_the_resumed_run():
    given = TrainOptions(
        model="other", data="x", image_size=9, stochastic_depth_mode="batch",
        activation="relu", hyperparameters={"mixup": 0.3},
    )  # fmt: skip
    options = given.resume(_record(mixup=0.2))
    assert (options.model, options.image_size) == ("other", 9)
    assert (options.stochastic_depth_mode, options.activation) == ("batch", "relu")
    assert options.train_spec() == replace(_record(mixup=0.3).train, data="x")
    options = TrainOptions(recipe="keras-io").resume(_record(mixup=0.2))
    assert options.train_spec() == TrainSpec("digits")


def test_a_resumed_fine_tuning_run_has_its_pretrained_weights_and_frozen_parts():
    record = _record(WeightsSource("a.keras", "0" * 64), freeze=("tokenizer", "blocks:1"))
    options = TrainOptions().resume(record)
    assert (options.model, options.pretrained) == (None, "a.keras")
    assert options.freeze == "tokenizer,blocks:1"
    assert options.train_spec() == record.train
    assert TrainOptions(freeze="head").resume(record).train_spec().freeze == ("head",)
