"""Fine-tuning: a model with pretrained weights, and parts of it that are not trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras

from cct_export.bounds import shown
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model.adapting import copy_weights, with_image_size
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec
from cct_export.training.recipes import PARTS, check_parts
from cct_export.training.run import WeightsSource


@dataclass(frozen=True)
class Pretrained:
    """The model to fine-tune.

    Attributes:
        model: a CCT with trained weights.
        origin: where they are from.
    """

    model: CCT
    origin: WeightsSource

    @classmethod
    def of(cls, model: keras.Model, source: str, sha256: str) -> "Pretrained":
        """Returns a loaded model as the start of fine-tuning.

        Raises:
            InvalidModel: it is not a CCT of this package.
        """
        if type(model) is not CCT:
            raise InvalidModel(
                f"{source} is no CCT ({type(model).__name__}): only a CCT can be fine-tuned"
            )
        return cls(model, WeightsSource(source, sha256))


def architecture(
    spec: ModelSpec,
    *,
    image_size: int | None = None,
    stochastic_depth_mode: str | None = None,
    activation: str | None = None,
) -> ModelSpec:
    """Returns ``spec`` with other fields; None for those of ``spec``.

    Args:
        spec: the architecture.
        image_size: height and width in pixels.
        stochastic_depth_mode: one of ``specs.STOCHASTIC_DEPTH_MODES``.
        activation: of the MLP, one of ``specs.ACTIVATIONS``.

    Raises:
        InvalidModel: the images are too small for the tokenizer.
        InvalidRequest: unknown mode or activation.
    """
    if image_size is not None:
        spec = with_image_size(spec, image_size)
    names = {"stochastic_depth_mode": stochastic_depth_mode, "activation": activation}
    given = {field: name for field, name in names.items() if name is not None}
    try:
        return replace(spec, **given)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def needs_new_head(pretrained: ModelSpec, spec: ModelSpec) -> bool:
    """Tells whether the classes differ; those of a model without labels may be the same."""
    renamed = pretrained.labels and spec.labels and pretrained.labels != spec.labels
    return pretrained.classes != spec.classes or bool(renamed)


def load_pretrained(pretrained: CCT, model: CCT) -> list[str]:
    """Copies pretrained weights into ``model``; its head stays new if the classes differ.

    Args:
        pretrained: of the same architecture but for image size, classes and activation.
        model: changed in place.

    Returns:
        A line for every change of the weights, and one for another activation.
    """
    changes = copy_weights(pretrained, model, needs_new_head(pretrained.spec, model.spec))
    same_classes = pretrained.spec.classes == model.spec.classes
    if same_classes and model.spec.labels and not pretrained.spec.labels:
        changes.append(
            f"its head is kept: it has no labels, and {model.spec.classes} classes like the data"
        )
    before, now = pretrained.spec.activation, model.spec.activation
    if before != now:
        changes.append(f"{now} in place of {before} in its MLPs")
    return changes


def check_frozen(parts: Sequence[str], spec: ModelSpec, pretrained: ModelSpec | None) -> None:
    """Checks that parts can be frozen.

    Args:
        parts: see ``PARTS``.
        spec: the model to train.
        pretrained: the model to fine-tune; None for random initialization.

    Raises:
        InvalidRequest: the model lacks a part, has no pretrained weights for it, or all is frozen.
    """
    if not parts:
        return
    if pretrained is None:
        raise InvalidRequest(
            "only pretrained weights can be frozen: name the model to fine-tune (--from)"
        )
    frozen = frozen_layers(parts, spec)
    if PARTS["head"] in frozen and needs_new_head(pretrained, spec):
        raise InvalidRequest("the head cannot be frozen: it is new, because the classes differ")
    if frozen >= _trainable_layers(spec):
        raise InvalidRequest(f"--freeze {','.join(parts)} leaves nothing to train")


def frozen_layers(parts: Sequence[str], spec: ModelSpec) -> set[str]:
    """Returns the names of the layers of ``parts``.

    Raises:
        InvalidRequest: the model has no such part.
    """
    check_parts(parts)
    names: set[str] = set()
    for part in parts:
        name, colon, count = part.partition(":")
        if name == "positions" and spec.positional == "none":
            raise InvalidRequest(f"{spec.name} has no positions to freeze")
        if name != "blocks":
            names.add(PARTS[name])
            continue
        if colon and count not in map(str, range(1, spec.layers + 1)):
            raise InvalidRequest(
                f"{shown(part)} of {spec.layers} blocks: give blocks:1 or more of them"
            )
        names |= {f"block_{index}" for index in range(int(count) if colon else spec.layers)}
    return names


def _trainable_layers(spec: ModelSpec) -> set[str]:
    names = {PARTS[part] for part in ("tokenizer", "norm", "pooling", "head")}
    if spec.positional == "learnable":
        names.add(PARTS["positions"])
    return names | {f"block_{index}" for index in range(spec.layers)}


def freeze(model: CCT, parts: Sequence[str]) -> None:
    """Excludes ``parts`` from training; their dropout stays active.

    Raises:
        InvalidRequest: the model has no such part.
    """
    for name in frozen_layers(parts, model.spec):
        model.get_layer(name).trainable = False
