"""Training recipes: built-in ones, those of TOML files, and that of a run to resume."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.errors import InvalidRequest
from cct_export.files import check_file, reason
from cct_export.names import choose, suggestion
from cct_export.specs import TrainSpec
from cct_export.specs.train import OF_TEACHER, Overrides, Value, hyperparameters

if TYPE_CHECKING:
    from cct_export.training.run import RunRecord

DEFAULT = "keras-io"
FINE_TUNING = "finetune"
RECIPES: dict[str, dict[str, Value]] = {
    # The example "Compact Convolutional Transformers" of keras.io: the defaults of ``TrainSpec``.
    "keras-io": {},
    # After the appendix of arXiv:2104.05704, with the augmentation that Keras has.
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
    # For small models and 50 epochs; MixUp and CutMix pay off from 100 epochs on.
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
    # From pretrained weights: a low learning rate and little augmentation.
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


# Parts that can be frozen, and the layers of a CCT that they are; "block_" stands for all blocks.
PARTS = {
    "tokenizer": "tokenizer",
    "positions": "position_embedding",
    "blocks": "block_",
    "norm": "norm",
    "pooling": "pooling",
    "head": "logits",
}


def check_parts(parts: Sequence[str]) -> None:
    """Checks the names of parts, before anything is loaded.

    Raises:
        InvalidRequest: unknown part; the message lists all.
    """
    for part in parts:
        name, colon, _ = part.partition(":")
        if name not in PARTS or (colon and name != "blocks"):
            raise InvalidRequest(
                f"no part is called {part!r}: {suggestion(part, PARTS)}; "
                "blocks:N are the first N blocks"
            )


def resolve(recipe: str, data: str, overrides: Overrides | None = None) -> TrainSpec:
    """Returns a recipe with a value for every hyperparameter.

    Args:
        recipe: a name of ``RECIPES``, or a TOML file with hyperparameters as keys; its key
            ``recipe``, if any, names the recipe that it extends, by default ``keras-io``.
        data: the dataset, as ``--data`` takes it.
        overrides: fields of ``TrainSpec`` that take precedence over the recipe.

    Raises:
        InvalidRequest: unknown recipe or hyperparameter, or a value out of bounds.
    """
    if recipe.lower().endswith(".toml"):
        name, values = Path(recipe).name, _read_toml(Path(recipe))
    else:
        name = choose(recipe, (*RECIPES, "FILE.toml"), what="recipe")
        values = RECIPES[name]
    fields: Overrides = {**values, **(overrides or {})}
    return _override(TrainSpec(data, recipe=name), f"recipe {recipe}", fields)


def _override(spec: TrainSpec, source: str, overrides: Overrides) -> TrainSpec:
    """Returns ``spec`` with ``overrides``; ``source`` names them in the errors."""
    _check_keys(overrides, source, also=("freeze", "recipe"))
    try:
        return replace(spec, **overrides)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{source}: {error}") from error


def _read_toml(path: Path) -> dict[str, Value]:
    """Returns the hyperparameters of a TOML file and of the recipe that it extends."""
    check_file(path, "recipe")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        # Python's advice on numbers of thousands of digits is for programmers.
        why = reason(error, str(error).partition("; use sys.")[0])
        raise InvalidRequest(f"{path} cannot be read as TOML: {why}") from error
    base = values.pop("recipe", DEFAULT)
    if not isinstance(base, str) or base not in RECIPES:
        hint = suggestion(str(base), RECIPES)
        raise InvalidRequest(f"{path}: no recipe is called {base!r}: {hint}")
    _check_keys(values, str(path))
    return RECIPES[base] | values


def _check_keys(values: Mapping[str, object], source: str, also: tuple[str, ...] = ()) -> None:
    """Refuses a key that is no hyperparameter, and suggests the closest one."""
    known = [hyperparameter.name for hyperparameter in hyperparameters()]
    for key in values:
        if key not in (*known, *also):
            hint = suggestion(key, known)
            raise InvalidRequest(f"{source}: no recipe has a key {key!r}: {hint}")


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``cct-export train`` that define a run; None for those not given.

    Attributes:
        model: name of a preset.
        pretrained: the model to fine-tune, see ``importers.load_model``.
        teacher: the classifier to learn from, of the same kind.
        image_size: height and width in pixels.
        stochastic_depth_mode: one of ``specs.STOCHASTIC_DEPTH_MODES``.
        activation: of the MLP, one of ``specs.ACTIVATIONS``.
        recipe: a name of ``RECIPES`` or a TOML file.
        data: the dataset.
        freeze: parts that are not trained, separated by commas.
        hyperparameters: values that take precedence over the recipe.
        base: hyperparameters of the run to resume, in place of a recipe's.
    """

    model: str | None = None
    pretrained: str | None = None
    teacher: str | None = None
    image_size: int | None = None
    stochastic_depth_mode: str | None = None
    activation: str | None = None
    recipe: str | None = None
    data: str | None = None
    freeze: str | None = None
    hyperparameters: dict[str, Value] = field(default_factory=dict)
    base: TrainSpec | None = None

    def resume(self, record: "RunRecord") -> "TrainOptions":
        """Returns these options, with those not given as a run has them.

        Args:
            record: of the run to resume.
        """
        model, pretrained = self.model, self.pretrained
        if model is None and pretrained is None:
            pretrained = record.start.source if record.start else None
            model = None if record.start else record.model.name
        return replace(
            self,
            model=model,
            pretrained=pretrained,
            teacher=self.teacher or (record.teacher.source if record.teacher else None),
            image_size=self.image_size or record.model.image_size,
            stochastic_depth_mode=self.stochastic_depth_mode or record.model.stochastic_depth_mode,
            activation=self.activation or record.model.activation,
            data=record.train.data if self.data is None else self.data,
            freeze=",".join(record.train.freeze) or None if self.freeze is None else self.freeze,
            base=record.train if self.recipe is None else None,
        )

    def train_spec(self) -> TrainSpec:
        """Returns the training run.

        Raises:
            InvalidRequest: unknown recipe, a value out of bounds, or one that needs a teacher.
        """
        spec = self._train_spec()
        for name in OF_TEACHER:
            if self.teacher is None and spec.quantize == "none" and name in self.hyperparameters:
                raise InvalidRequest(
                    f"{name} does nothing without a teacher: name one (--teacher), or leave it out"
                )
        return spec

    def _train_spec(self) -> TrainSpec:
        overrides = {**self.hyperparameters, "freeze": _split(self.freeze)}
        data = "cifar10" if self.data is None else self.data
        if self.base is not None:
            base = replace(self.base, data=data)
            return _override(base, f"recipe {self.base.recipe}", overrides)
        default = DEFAULT if self.pretrained is None else FINE_TUNING
        return resolve(default if self.recipe is None else self.recipe, data, overrides)


def _split(parts: str | None) -> tuple[str, ...]:
    """Returns the words between commas; the text itself, which is no part, if there are none."""
    if parts is None:
        return ()
    return tuple(word.strip() for word in parts.split(",") if word.strip()) or (parts,)
