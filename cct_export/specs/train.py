"""How a model is trained: every knob of a recipe, with what it may be."""

import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

OPTIMIZERS = ("adamw", "muon", "sgd")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
JIT = ("auto", "on", "off")
# Where the course of a run is logged, besides its own files.
LOGS = ("tensorboard", "wandb")
_BOUNDS = {"least": operator.ge, "most": operator.le, "below": operator.lt, "above": operator.gt}


def _knob(
    default: Any,
    help: str,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Returns a field whose metadata says what it does and what it may be."""
    bounds = {"least": least, "most": most, "below": below, "above": above}
    return field(default=default, metadata={"help": help, "choices": tuple(choices)} | bounds)


@dataclass(frozen=True)
class TrainSpec:
    """A training run; the defaults are the recipe of the keras.io example.

    Every field is an option of ``cct-export train`` and a key of a recipe's TOML file; what it does
    is said there, see ``help`` in its metadata. ``freeze`` names parts whose weights stay as they
    are, see ``training.transfer.PARTS``.

    Raises:
        ValueError: a field is of another type than its default or out of its bounds; the message
            has its name and value.
    """

    data: str
    recipe: str = field(default="keras-io", metadata={"help": "Name of the recipe, or its file."})
    epochs: int = _knob(30, "Passes over the training images.", least=1)
    batch: int = _knob(128, "Images per step, over all devices.", least=1)
    optimizer: str = _knob(
        "adamw",
        "adamw (arXiv:1711.05101), muon (arXiv:2502.16982; AdamW for what is no matrix), or sgd "
        "with Nesterov momentum 0.9.",
        choices=OPTIMIZERS,
    )
    learning_rate: float = _knob(1e-3, "The largest of the schedule.", above=0)
    schedule: str = _knob("constant", "Of the learning rate after warm-up.", choices=SCHEDULES)
    warmup: float = _knob(0.0, "Epochs in which the learning rate rises from 0.", least=0)
    final_rate: float = _knob(
        0.01, "Where cosine ends, as a fraction of the learning rate.", least=0, most=1
    )
    weight_decay: float = _knob(1e-4, "Decoupled from the gradient.", least=0)
    decay_all: bool = _knob(
        True, "Weight decay of biases, normalizations and positions too, as in the example."
    )
    clip_norm: float = _knob(0.0, "Largest norm of all gradients together; 0 for any.", least=0)
    ema: float = _knob(
        0.0,
        "Momentum per step of the exponential moving average of the weights that is validated and "
        "kept; 0 for the weights themselves.",
        least=0,
        below=1,
    )
    label_smoothing: float = _knob(0.1, "Of the targets.", least=0, below=1)
    flip: bool = _knob(True, "Mirror half of the images.")
    crop: float = _knob(
        0.0, "Shift images by up to this fraction of their size; what comes in is black.",
        least=0, below=1,
    )  # fmt: skip
    rand_augment: int = _knob(
        0, "Random changes of each batch (RandAugment, arXiv:1909.13719).", least=0, most=10
    )
    magnitude: float = _knob(9.0, "Strength of those changes.", above=0, most=10)
    mixup: float = _knob(0.0, "Alpha of MixUp (arXiv:1710.09412); 0 for none.", least=0)
    cutmix: float = _knob(
        0.0, "Alpha of CutMix (arXiv:1905.04899); 0 for none. With MixUp, each batch gets one.",
        least=0, most=1,
    )  # fmt: skip
    mix_probability: float = _knob(1.0, "Of mixing a batch at all.", least=0, most=1)
    erasing: float = _knob(
        0.0, "Probability of Random Erasing (arXiv:1708.04896) of each image.", least=0, most=1
    )
    dropout: float = _knob(-1.0, "Of the model while training; -1 as the model has it.", most=1)
    stochastic_depth: float = _knob(
        -1.0, "Of the model's last block while training; -1 as the model has it.", below=1
    )
    precision: str = _knob(
        "float32", "What is computed in; weights are float32.", choices=PRECISIONS
    )
    jit: str = _knob("auto", "Compile steps with XLA; auto leaves it to Keras.", choices=JIT)
    patience: int = _knob(
        0, "Stop after so many epochs without a better validation; 0 for never.", least=0
    )
    validation: float = _knob(
        0.1, "Fraction of the training images held out to choose the best epoch.",
        above=0, below=1,
    )  # fmt: skip
    skip_corrupt: bool = _knob(False, "Leave out images that cannot be decoded, each named.")
    seed: int = _knob(
        0, "Of weights, order, augmentation and the held-out images.", least=0, most=2**32 - 1
    )
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # As of ModelSpec: JSON has no tuples. A string is what the command line takes.
        freeze: Any = self.freeze
        parts = freeze.split(",") if isinstance(freeze, str) else freeze
        object.__setattr__(self, "freeze", tuple(parts))
        for one in fields(self):
            if "choices" in one.metadata:
                object.__setattr__(self, one.name, _checked(one, getattr(self, one.name)))
        for name in ("dropout", "stochastic_depth"):
            if -1 != getattr(self, name) < 0:
                raise ValueError(
                    f"{name} must be 0 or more, or -1 as the model has it, "
                    f"not {getattr(self, name)}"
                )

    @property
    def on_corrupt(self) -> Literal["refuse", "skip"]:
        """What to do with an image that cannot be decoded, see ``data.read``."""
        return "skip" if self.skip_corrupt else "refuse"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        return asdict(self) | {"freeze": list(self.freeze)}


def knobs() -> list[Any]:
    """Returns the fields of ``TrainSpec`` that a recipe sets, in their order."""
    return [one for one in fields(TrainSpec) if "choices" in one.metadata]


def _checked(knob: Any, value: Any) -> Any:
    """Returns ``value`` in the type of the knob's default.

    Raises:
        ValueError: it is of another type or out of bounds.
    """
    kind = type(knob.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{knob.name} is of type {kind.__name__}, not {value!r}")
    allowed = knob.metadata
    if allowed["choices"] and value not in allowed["choices"]:
        raise ValueError(f"{knob.name} is {' or '.join(allowed['choices'])}, not {value!r}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{knob.name} must be a number, not {value}")
    for word, kept in _BOUNDS.items():
        bound = allowed[word]
        if bound is not None and not kept(value, bound):
            said = f"at {word}" if word in ("least", "most") else word
            raise ValueError(f"{knob.name} must be {said} {bound}, not {value}")
    return value
