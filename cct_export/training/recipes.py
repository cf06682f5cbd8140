"""Recipes as data: named ones, and those of TOML files."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from cct_export.errors import InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.specs.train import knobs

DEFAULT = "keras-io"
RECIPES: dict[str, dict[str, Any]] = {
    # The example "Compact Convolutional Transformers" of keras.io: the defaults of ``TrainSpec``.
    "keras-io": {},
    # After arXiv:2104.05704, appendix, with the changes of images that Keras has.
    "paper": {
        "epochs": 300,
        "learning_rate": 6e-4,
        "schedule": "cosine",
        "warmup": 10.0,
        "weight_decay": 0.06,
        "decay_all": False,
        "crop": 0.125,
        "rand_augment": 2,
        "magnitude": 9.0,
        "mixup": 0.8,
        "cutmix": 1.0,
        "erasing": 0.25,
        "dropout": 0.0,
        "stochastic_depth": 0.1,
    },
    # What a small model gains most from in few epochs; mixing pays in 100 of them.
    "short": {
        "epochs": 50,
        "optimizer": "muon",
        "learning_rate": 6e-3,
        "schedule": "cosine",
        "warmup": 3.0,
        "weight_decay": 0.05,
        "decay_all": False,
        "clip_norm": 1.0,
        "ema": 0.998,
        "crop": 0.125,
        "erasing": 0.125,
        "dropout": 0.0,
        "stochastic_depth": 0.0,
    },
    # From trained weights: a low rate, and little that moves them far.
    "finetune": {
        "epochs": 20,
        "learning_rate": 2e-4,
        "schedule": "cosine",
        "warmup": 1.0,
        "weight_decay": 0.01,
        "decay_all": False,
        "clip_norm": 1.0,
        "crop": 0.125,
    },
}


def resolve(recipe: str, data: str, overrides: dict[str, Any] | None = None) -> TrainSpec:
    """Returns the recipe with everything it leaves open filled in.

    Args:
        recipe: a name of ``RECIPES``, or a TOML file with fields of ``TrainSpec`` as its keys; its
            key ``recipe``, if there is one, names what it begins with, by default ``keras-io``.
        data: what ``--data`` says.
        overrides: fields of ``TrainSpec`` that are said otherwise.

    Raises:
        InvalidRequest: no such recipe, a key that is none, or a value that cannot be.
    """
    if recipe in RECIPES:
        name, said = recipe, dict(RECIPES[recipe])
    elif recipe.endswith(".toml"):
        name, said = Path(recipe).name, _of_file(Path(recipe))
    else:
        raise InvalidRequest(
            f"no recipe is called {recipe!r}: there is {', '.join(RECIPES)}, or name a .toml file"
        )
    overrides = overrides or {}
    _check_keys(overrides, f"recipe {recipe}", also=("freeze", "recipe"))
    try:
        return TrainSpec(data, **(said | {"recipe": name} | overrides))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"recipe {recipe}: {error}") from error


def _of_file(path: Path) -> dict[str, Any]:
    """Returns what a TOML file says, on top of the recipe that it begins with."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} cannot be read as TOML: {error}") from error
    begun = said.pop("recipe", DEFAULT)
    if not isinstance(begun, str) or begun not in RECIPES:
        raise InvalidRequest(f"{path}: recipe is {', '.join(RECIPES)}, not {begun!r}")
    _check_keys(said, str(path))
    return RECIPES[begun] | said


def _check_keys(said: dict[str, Any], where: str, also: tuple[str, ...] = ()) -> None:
    """Refuses what is no knob, and names the one that may be meant."""
    known = [knob.name for knob in knobs()]
    for key in said:
        if key not in (*known, *also):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
            raise InvalidRequest(f"{where}: no recipe has a key {key!r}: {hint}")
