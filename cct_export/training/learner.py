"""A CCT with what it needs to learn: changes of its images, loss, metrics and optimizer."""

import logging
from typing import Any

import keras
from keras import ops

from cct_export.errors import InvalidRequest
from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training.augmentation import Augmentation

log = logging.getLogger(__name__)

# Of variables: what is no matrix or filter, and what Muon leaves to AdamW.
_SMALL = ("bias", "gamma", "beta", "embeddings")
_ENDS = ("logits", "pooling")


class Learner(keras.Model):
    """Learns from batches ``{"image": uint8, "target": one-hot float32}``.

    Mixing images mixes their targets, so both go in, and loss and metrics are of what comes out.

    Args:
        cct: the model that learns; nothing else is kept in the end.
        recipe: how.
    """

    def __init__(self, cct: CCT, recipe: TrainSpec) -> None:
        super().__init__(name="learner")
        self.cct = cct
        self.augmentation = Augmentation(recipe)
        self.criterion = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.label_smoothing
        )
        self.measures = [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top5"),
        ]

    def build(self, shapes: dict[str, Any]) -> None:
        """Builds nothing: the model is built, and changes of images have no weights."""
        self.built = True

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Returns logits, and the targets they are to meet."""
        images, targets = ops.cast(batch["image"], "float32"), batch["target"]
        if training:
            images, targets = self.augmentation(images, targets)
        logits = ops.cast(self.cct(images, training=training), "float32")
        return {"logits": logits, "target": targets}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the cross entropy of a batch; Keras calls it."""
        return self.criterion(y_pred["target"], y_pred["logits"])

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns them; Keras calls it."""
        for measure in self.measures:
            measure.update_state(y_pred["target"], y_pred["logits"])
        found: dict[str, Any] = self.get_metrics_result()
        return found


def check(recipe: TrainSpec) -> None:
    """Looks whether a recipe can be followed.

    Raises:
        InvalidRequest: the step is to be compiled and cannot be.
    """
    if recipe.warmup >= recipe.epochs:
        log.warning(
            "the learning rate rises for %g epochs and the run has %d: it never reaches %g",
            recipe.warmup, recipe.epochs, recipe.learning_rate,
        )  # fmt: skip
    knobs = ("crop", "rand_augment", "mixup", "cutmix")
    used = [name for name in knobs if getattr(recipe, name)]
    if recipe.jit == "on" and keras.backend.backend() == "tensorflow" and used:
        raise InvalidRequest(
            f"jit on: TensorFlow's XLA cannot compile what {' and '.join(used)} would do to "
            "images: leave jit at auto, set them to 0, or train on JAX"
        )


def compiled(cct: CCT, recipe: TrainSpec, steps: int, kind: type[Learner] = Learner) -> Learner:
    """Returns the model ready to learn.

    Args:
        cct: the model.
        recipe: how.
        steps: of one epoch.
        kind: what learns, see ``replicas`` for batches that are shared.
    """
    learner = kind(cct, recipe)
    size, channels = cct.spec.image_size, cct.spec.channels
    learner.build({"image": (None, size, size, channels), "target": (None, cct.spec.classes)})
    jit: Any = {"auto": "auto", "on": True, "off": False}[recipe.jit]
    learner.compile(_optimizer(recipe, steps), jit_compile=jit)
    return learner


def _optimizer(recipe: TrainSpec, steps: int) -> keras.optimizers.Optimizer:
    common: dict[str, Any] = {
        "learning_rate": _rate(recipe, steps),
        "weight_decay": recipe.weight_decay,
        "global_clipnorm": recipe.clip_norm or None,
        "use_ema": recipe.ema > 0,
    }
    if recipe.ema:
        common["ema_momentum"] = recipe.ema
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**common)
    elif recipe.optimizer == "muon":
        optimizer = keras.optimizers.Muon(
            **common, adam_weight_decay=recipe.weight_decay, exclude_layers=list(_ENDS)
        )
    else:
        optimizer = keras.optimizers.SGD(**common, momentum=0.9, nesterov=True)
    if not recipe.decay_all:
        optimizer.exclude_from_weight_decay(var_names=list(_SMALL))
    return optimizer


def _rate(recipe: TrainSpec, steps: int) -> Any:
    """Returns the learning rate of every step: a rise in a line, then what the schedule says."""
    rate, rise = recipe.learning_rate, round(recipe.warmup * steps)
    if recipe.schedule == "constant" and not rise:
        return rate
    # A cosine that ends where it begins is constant.
    end = 1.0 if recipe.schedule == "constant" else recipe.final_rate
    falls = max(1, recipe.epochs * steps - rise)
    if not rise:
        return keras.optimizers.schedules.CosineDecay(rate, falls, end)
    return keras.optimizers.schedules.CosineDecay(
        0.0, falls, end, warmup_target=rate, warmup_steps=rise
    )
