"""Fine-tuning: weights taken over from another CCT, and parts of it that stay as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model.adapting import interpolate_positions, with_image_size
from cct_export.model.cct import CCT
from cct_export.model.sizes import token_grid
from cct_export.specs import ModelSpec

# What can be frozen, and the layer of a CCT that it is; of blocks there are several.
PARTS = {
    "tokenizer": "tokenizer",
    "positions": "position_embedding",
    "blocks": "block_",
    "norm": "norm",
    "pooling": "pooling",
    "head": "logits",
}


@dataclass(frozen=True)
class Start:
    """The model that fine-tuning begins with.

    Attributes:
        model: a CCT with trained weights.
        source: what the user wrote.
        sha256: checksum of the file that holds the weights.
    """

    model: CCT
    source: str
    sha256: str

    @classmethod
    def of(cls, model: keras.Model, source: str, sha256: str) -> "Start":
        """Returns the start from a model that was loaded.

        Raises:
            InvalidModel: it is no CCT of this package.
        """
        if type(model) is not CCT:
            raise InvalidModel(
                f"{source} is no CCT ({type(model).__name__}): fine-tuning begins with one"
            )
        return cls(model, source, sha256)

    def to_dict(self) -> dict[str, Any]:
        """Returns where the weights are from."""
        return {"source": self.source, "sha256": self.sha256}


def architecture(
    spec: ModelSpec, image_size: int | None = None, stochastic_depth_mode: str | None = None
) -> ModelSpec:
    """Returns ``spec`` for images of another size, or with another stochastic depth.

    Raises:
        InvalidModel: the images are too small for the tokenizer.
    """
    if image_size is not None:
        spec = with_image_size(spec, image_size)
    if stochastic_depth_mode is not None:
        try:
            spec = replace(spec, stochastic_depth_mode=stochastic_depth_mode)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
    return spec


def has_new_head(base: ModelSpec, spec: ModelSpec) -> bool:
    """Tells whether ``spec`` is for other classes than ``base``; labels not known are no others."""
    renamed = base.labels and spec.labels and base.labels != spec.labels
    return base.classes != spec.classes or bool(renamed)


def take_over(base: CCT, model: CCT) -> list[str]:
    """Gives ``model`` the weights of ``base`` wherever they mean the same.

    The head is left as it is where the classes are others, and learned positions are interpolated
    where the grid of tokens is another.

    Args:
        base: of the same architecture but for image size and classes.
        model: changed in place.

    Returns:
        A line for everything that was not simply copied.
    """
    changes = []
    for layer in model.layers:
        weights = base.get_layer(layer.name).get_weights()
        if layer.name == PARTS["head"] and has_new_head(base.spec, model.spec):
            changes.append(
                f"a new head for {model.spec.classes} classes in place of {base.spec.classes}"
            )
            continue
        if layer.name == PARTS["head"] and model.spec.labels and not base.spec.labels:
            changes.append(
                f"its head is kept: it names no classes, and the data has {base.spec.classes} too"
            )
        if layer.name == PARTS["positions"]:
            old, new = token_grid(base.spec), token_grid(model.spec)
            if old != new and base.spec.positional == "sine":
                continue  # its formula gives the table of any grid
            if old != new:
                weights = [interpolate_positions(weights[0], old, new)]
                changes.append(
                    f"positions of {old[0]}×{old[1]} tokens interpolated to {new[0]}×{new[1]}"
                )
        layer.set_weights(weights)
    return changes


def check_parts(parts: Sequence[str]) -> None:
    """Refuses words that stand for no part, before anything is loaded.

    Raises:
        InvalidRequest: there is no such part; the message has those there are.
    """
    for part in parts:
        name, colon, _ = part.partition(":")
        if name not in PARTS or (colon and name != "blocks"):
            known = ", ".join(PARTS)
            raise InvalidRequest(
                f"no part is called {part!r}: there is {known}; blocks:N are the first N blocks"
            )


def check_frozen(parts: Sequence[str], spec: ModelSpec, start: Start | None) -> None:
    """Refuses to freeze what there is not, what was not trained, or everything.

    Raises:
        InvalidRequest: see there; the message has the part, and those there are.
    """
    if not parts:
        return
    if start is None:
        raise InvalidRequest(
            "only what was trained can be frozen: name the checkpoint to begin with (--from)"
        )
    frozen = frozen_layers(parts, spec)
    if PARTS["head"] in frozen and has_new_head(start.model.spec, spec):
        raise InvalidRequest("the head cannot be frozen: it is new, because the classes are others")
    if frozen >= _trainable_layers(spec):
        raise InvalidRequest(f"--freeze {','.join(parts)} leaves nothing to train")


def frozen_layers(parts: Sequence[str], spec: ModelSpec) -> set[str]:
    """Returns the names of the layers that ``parts`` mean.

    Raises:
        InvalidRequest: there is no such part.
    """
    check_parts(parts)
    found: set[str] = set()
    for part in parts:
        name, colon, count = part.partition(":")
        if name == "positions" and spec.positional == "none":
            raise InvalidRequest(f"{spec.name} has no positions to freeze")
        if name != "blocks":
            found.add(PARTS[name])
            continue
        if colon and not (count.isascii() and count.isdigit() and 1 <= int(count) <= spec.layers):
            raise InvalidRequest(f"{part!r} of {spec.layers} blocks: give blocks:1 or more of them")
        found |= {f"block_{index}" for index in range(int(count) if colon else spec.layers)}
    return found


def _trainable_layers(spec: ModelSpec) -> set[str]:
    names = {PARTS[part] for part in ("tokenizer", "norm", "pooling", "head")}
    if spec.positional == "learnable":
        names.add(PARTS["positions"])
    return names | {f"block_{index}" for index in range(spec.layers)}


def freeze(model: CCT, parts: Sequence[str]) -> None:
    """Keeps the weights of ``parts`` as they are; dropout in them goes on.

    Raises:
        InvalidRequest: there is no such part.
    """
    for name in frozen_layers(parts, model.spec):
        model.get_layer(name).trainable = False
