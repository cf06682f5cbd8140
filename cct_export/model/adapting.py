"""A CCT changed after it was trained: other classes, another image size, another normalization."""

from dataclasses import replace
from typing import Any

import keras

from cct_export.errors import InvalidRequest
from cct_export.model.cct import CCT
from cct_export.model.presets import CIFAR, CIFAR100, IMAGENET
from cct_export.model.resize import positions, token_grid
from cct_export.specs import ModelSpec

NORMALIZATIONS = {"cifar10": CIFAR, "cifar100": CIFAR100, "imagenet": IMAGENET, "none": ((), ())}


def adapted(
    model: CCT,
    image_size: int | None = None,
    classes: int | None = None,
    normalize: str | None = None,
    labels: tuple[str, ...] = (),
) -> tuple[CCT, tuple[str, ...]]:
    """Returns ``model`` with other sizes, and what was changed in words.

    Learnable positions are interpolated as the paper's code does it; the sine table is that of the
    new number of tokens. Where the number of classes changes, the classifier has fresh weights.

    Args:
        model: the trained model, which stays as it is.
        image_size: height and width in pixels; None for the model's.
        classes: number of logits; None for the model's, or as many as there are labels.
        normalize: one of ``specs.NORMALIZATIONS``; None for the model's.
        labels: names of the classes; none keeps the model's, if their number is the same.

    Raises:
        InvalidRequest: labels and classes differ in number, the image is too small for the
            tokenizer, or the normalization is one of three channels and the model's is not.
    """
    spec = model.spec
    classes = classes or len(labels) or spec.classes
    changes: dict[str, Any] = {"image_size": image_size or spec.image_size, "classes": classes}
    changes["labels"] = labels or (spec.labels if classes == spec.classes else ())
    if normalize is not None:
        changes["mean"], changes["std"] = NORMALIZATIONS[normalize]
    try:
        new = replace(spec, **changes)
        if new == spec:
            return model, ()
        twin = CCT(replace(new, name=_name(spec, new)))
    except ValueError as error:
        raise InvalidRequest(f"the model cannot be changed so: {error}") from error
    return twin, tuple(_take_over(model, twin))


def _name(spec: ModelSpec, new: ModelSpec) -> str:
    """Returns a name that is not taken for that of the preset which the model began as."""
    name = spec.name
    if new.image_size != spec.image_size:
        name += f"_{new.image_size}px"
    if new.classes != spec.classes:
        name += f"_c{new.classes}"
    return name


def _take_over(model: CCT, twin: CCT) -> list[str]:
    """Gives ``twin`` the weights of ``model`` and says which could not stay as they were."""
    said = []
    weights = []
    grids = token_grid(model.spec), token_grid(twin.spec)
    for old, new in zip(model.weights, twin.weights, strict=True):
        array = keras.ops.convert_to_numpy(old)
        if old.shape == new.shape:
            weights.append(array)
        elif "position_embedding" in new.path:
            fixed = keras.ops.convert_to_numpy(new)
            sine = twin.spec.positional == "sine"
            how = "computed anew" if sine else "interpolated bilinearly"
            weights.append(fixed if sine else positions(array, *grids))
            said.append(f"positions of {len(array)} tokens {how} for {len(fixed)}")
        else:
            weights.append(keras.ops.convert_to_numpy(new))
    if model.spec.classes != twin.spec.classes:
        was, now = model.spec.classes, twin.spec.classes
        said.append(f"classifier of {was} classes replaced by a fresh one of {now}: train it")
    if (model.spec.mean, model.spec.std) != (twin.spec.mean, twin.spec.std):
        said.append("normalization replaced: the weights were trained with another")
    twin.set_weights(weights)
    return said
