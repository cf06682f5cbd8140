"""Options of a training run: the hyperparameters of a recipe, with their bounds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, cast

from cct_export.bounds import Range, is_finite, shown
from cct_export.errors import InvalidRequest
from cct_export.names import find, suggestion

OPTIMIZERS = ("adamw", "muon", "sgd")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Further augmentation of images.
AUGMENTATIONS = ("none", "jpeg")
JIT = ("auto", "on", "off")
# Schemes whose rounding of activations a model can be trained with.
TRAINED_SCHEMES = ("none", "int8-full")
TEACHER_LOSSES = ("kl", "mse")
# Hyperparameters that do nothing without a teacher.
OF_TEACHER = ("teacher_weight", "teacher_loss", "temperature", "embedding_weight")
# Experiment trackers that a run can log to, besides its own files.
LOGGERS = ("tensorboard", "wandb")
# Devices of this machine, or of all machines that the environment names.
DISTRIBUTIONS = ("local", "workers")

Value: TypeAlias = bool | int | float | str
# More than anyone needs, of epochs; and what a product of two rates in float32 still holds.
_MANY = 10**6
_LARGEST = 1e30
# Fields of a TrainSpec by name: hyperparameters, and the names of parts to freeze.
Overrides: TypeAlias = Mapping[str, Value | tuple[str, ...]]


@dataclass(frozen=True)
class Hyperparameter:
    """A field of ``TrainSpec`` that a recipe, an option or a TOML file sets.

    Attributes:
        name: of the field.
        default: of the keras.io example; its type is the type of the value.
        help: what it does.
        range: which numbers it may be.
        choices: the only values, for strings.
    """

    name: str
    default: Value
    help: str
    range: Range
    choices: tuple[str, ...]

    def convert(self, value: Value) -> Value:
        """Returns ``value`` as the type of the default.

        Raises:
            InvalidRequest: ``value`` has another type, is out of range or not among the choices.
        """
        kind = type(self.default)
        is_whole_float = kind is float and type(value) is int
        if type(value) is not kind and not is_whole_float:
            raise InvalidRequest(f"{self.name} is of type {kind.__name__}, not {shown(value)}")
        if is_whole_float and is_finite(value):
            value = float(value)
        if kind in (int, float):
            self.range.check(self.name, value)
        if not self.choices:
            return value
        if name := find(str(value), self.choices):
            return name
        raise InvalidRequest(
            f"no {self.name} is called {value!r}: {suggestion(str(value), self.choices)}"
        )


def _hyperparameter(
    default: Value, help: str, choices: tuple[str, ...] = (), **bounds: float
) -> Any:
    """Returns a dataclass field that carries its help, range and choices as metadata."""
    range = Range(whole=type(default) is int, **bounds)
    return field(default=default, metadata={"help": help, "range": range, "choices": choices})


@dataclass(frozen=True)
class TrainSpec:
    """A training run; the defaults are the recipe of the keras.io example.

    Every hyperparameter is an option of ``cct-export train`` and a key of a recipe's TOML file;
    ``hyperparameters`` lists them with their help. ``freeze`` names the parts of the model that are
    not trained, see ``training.transfer.PARTS``.

    Raises:
        InvalidRequest: a field has another type than its default or is out of range; the message
            has its name and value.
    """

    data: str
    recipe: str = "keras-io"
    epochs: int = _hyperparameter(30, "Passes over the training images.", minimum=1, maximum=_MANY)
    batch: int = _hyperparameter(
        128, "Global batch size, over all devices.", minimum=1, maximum=65536
    )
    optimizer: str = _hyperparameter(
        "adamw",
        "adamw (arXiv:1711.05101), muon (arXiv:2502.16982; AdamW for all but matrices), or sgd "
        "with Nesterov momentum 0.9.",
        choices=OPTIMIZERS,
    )
    learning_rate: float = _hyperparameter(1e-3, "Peak learning rate.", above=0, maximum=_LARGEST)
    schedule: str = _hyperparameter(
        "constant", "Learning rate schedule after warm-up.", choices=SCHEDULES
    )
    warmup: float = _hyperparameter(
        0.0,
        "Epochs of linear warm-up from 0, at most a tenth of the run.",
        minimum=0,
        maximum=_LARGEST,
    )
    final_rate: float = _hyperparameter(
        0.01,
        "Final learning rate of the cosine schedule, as a fraction of the peak.",
        minimum=0,
        maximum=1,
    )
    weight_decay: float = _hyperparameter(
        1e-4, "Decoupled weight decay.", minimum=0, maximum=_LARGEST
    )
    decay_all: bool = _hyperparameter(
        True, "Decay biases, normalizations and position embeddings too, as the example does."
    )
    clip_norm: float = _hyperparameter(
        0.0, "Clip gradients to this global norm; 0 for no clipping.", minimum=0, maximum=_LARGEST
    )
    ema: float = _hyperparameter(
        0.0,
        "Momentum per step of the exponential moving average of the weights, which is validated "
        "and saved; 0 for no averaging.",
        minimum=0,
        below=1,
    )
    label_smoothing: float = _hyperparameter(
        0.1, "Label smoothing of the targets.", minimum=0, below=1
    )
    teacher_weight: float = _hyperparameter(
        0.9,
        "With --teacher, weight of its answers in the loss; the labels have the rest.",
        minimum=0,
        maximum=1,
    )
    teacher_loss: str = _hyperparameter(
        "kl",
        "Distance from the teacher: kl of the distributions (arXiv:1503.02531), or mse of the "
        "logits (arXiv:2105.08919).",
        choices=TEACHER_LOSSES,
    )
    temperature: float = _hyperparameter(
        2.0, "Temperature that softens both distributions for kl.", minimum=0.1, maximum=100
    )
    embedding_weight: float = _hyperparameter(
        0.0,
        "With --teacher, weight of the distance from what its last layer gets, through a "
        "projection that is not kept.",
        minimum=0,
        maximum=_LARGEST,
    )
    flip: bool = _hyperparameter(True, "Augmentation: random horizontal flips.")
    crop: float = _hyperparameter(
        0.0,
        "Augmentation: random shifts by up to this fraction of the image size, padded with black.",
        minimum=0,
        below=1,
    )
    rand_augment: int = _hyperparameter(
        0,
        "Augmentation: number of RandAugment operations (arXiv:1909.13719) per batch.",
        minimum=0,
        maximum=10,
    )
    magnitude: float = _hyperparameter(
        9.0, "Magnitude of the RandAugment operations.", above=0, maximum=10
    )
    augment: str = _hyperparameter(
        "none",
        "Further augmentation: jpeg compresses half of the images as JPEG does, with qualities of "
        "50 to 95.",
        choices=AUGMENTATIONS,
    )
    mixup: float = _hyperparameter(
        0.0,
        "Augmentation: alpha of MixUp (arXiv:1710.09412); 0 for none.",
        minimum=0,
        maximum=_LARGEST,
    )
    cutmix: float = _hyperparameter(
        0.0,
        "Augmentation: alpha of CutMix (arXiv:1905.04899); 0 for none. With MixUp too, each batch "
        "gets one of the two.",
        minimum=0,
        maximum=1,
    )
    mix_probability: float = _hyperparameter(
        1.0, "Probability that MixUp or CutMix is applied to a batch.", minimum=0, maximum=1
    )
    erasing: float = _hyperparameter(
        0.0,
        "Augmentation: probability of Random Erasing (arXiv:1708.04896) per image.",
        minimum=0,
        maximum=1,
    )
    dropout: float = _hyperparameter(
        -1.0, "Dropout rate in training; -1 for that of the model.", maximum=1
    )
    stochastic_depth: float = _hyperparameter(
        -1.0, "Stochastic depth rate of the last block; -1 for that of the model.", below=1
    )
    quantize: str = _hyperparameter(
        "none",
        "With --from, fine-tune with activations rounded as those of an int8-full file are. The "
        "teacher is then the model itself, unless --teacher names another.",
        choices=TRAINED_SCHEMES,
    )
    precision: str = _hyperparameter(
        "float32", "Compute precision; weights are float32.", choices=PRECISIONS
    )
    jit: str = _hyperparameter(
        "auto", "Compile the training step with XLA; auto leaves it to Keras.", choices=JIT
    )
    patience: int = _hyperparameter(
        0,
        "Early stopping: epochs without a better validation accuracy; 0 for none.",
        minimum=0,
        maximum=_MANY,
    )
    validation: float = _hyperparameter(
        0.1,
        "Fraction of the training images held out for validation, which selects the best epoch.",
        above=0,
        below=1,
    )
    skip_corrupt: bool = _hyperparameter(
        False, "Skip images that cannot be decoded, with a warning for each."
    )
    seed: int = _hyperparameter(
        0,
        "Seed of initialization, shuffling, augmentation and the validation split.",
        minimum=0,
        maximum=2**32 - 1,
    )
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON has lists instead of tuples; the command line has one string.
        freeze: Any = self.freeze
        parts = freeze.split(",") if isinstance(freeze, str) else freeze
        object.__setattr__(self, "freeze", tuple(parts))
        for hyperparameter in hyperparameters():
            value = hyperparameter.convert(getattr(self, hyperparameter.name))
            object.__setattr__(self, hyperparameter.name, value)
        for name in ("dropout", "stochastic_depth"):
            rate = getattr(self, name)
            if rate < 0 and rate != -1:
                raise InvalidRequest(
                    f"{name} must be 0 or more, or -1 for that of the model, not {rate}"
                )

    @property
    def warmup_epochs(self) -> float:
        """Epochs of warm-up in this run: a longer one would take up most of a short run."""
        return min(self.warmup, self.epochs / 10)

    @property
    def on_corrupt(self) -> Literal["refuse", "skip"]:
        """What ``data.read`` does with an image that cannot be decoded."""
        return "skip" if self.skip_corrupt else "refuse"

    def to_dict(self) -> dict[str, Value | list[str]]:
        """Returns the fields as plain JSON types."""
        return asdict(self) | {"freeze": list(self.freeze)}


def hyperparameters() -> list[Hyperparameter]:
    """Returns the hyperparameters of ``TrainSpec`` in their order."""
    return [
        Hyperparameter(name, cast(Value, field.default), **field.metadata)
        for name, field in TrainSpec.__dataclass_fields__.items()
        if field.metadata
    ]
