"""What every importer gives, and what it checks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.importers.lookalike import logits
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import image_shape
from cct_export.model.resize import token_grid
from cct_export.specs import ImportSpec

Arrays = Mapping[str, np.ndarray]
# A model that needs more memory for one image is not tried.
_TRIED_BYTES = 1 << 30


@dataclass(frozen=True)
class Foreign:
    """A model that somebody else's code saved, as one of ours.

    Attributes:
        model: with the weights of the file.
        kind: what the file is, in words.
        tensors: how many there are in the file, or in the one of its state dicts that was taken;
            all of them are in the model.
        parameters: numbers in them.
        notes: what was concluded or changed, a line each.
        difference: the largest difference of a logit from the source's, where the source was run.
        images: how many images that is from.
    """

    model: keras.Model
    kind: str
    tensors: int
    parameters: int
    notes: tuple[str, ...] = ()
    difference: float | None = None
    images: int = 0


def of_arrays(
    model: keras.Model, kind: str, arrays: Arrays, notes: tuple[str, ...] = ()
) -> Foreign:
    """Returns the record of a model that has ``arrays``, by their names in the file, as weights."""
    parameters = sum(array.size for array in arrays.values())
    return Foreign(model, kind, len(arrays), parameters, notes)


def check_options(path: Path, options: ImportSpec, **reasons: str) -> None:
    """Refuses options that would change nothing.

    Args:
        path: the file, for the message.
        options: what was asked for.
        **reasons: by the name of an option, why it does nothing for such a file.

    Raises:
        InvalidRequest: one of these was given.
    """
    for name, reason in reasons.items():
        if getattr(options, name) is not None:
            raise InvalidRequest(f"--{name} does nothing for {path}: {reason}; leave it out")


def check_floats(arrays: Arrays, path: Path) -> None:
    """Raises ``InvalidModel`` naming the first tensor of whole numbers: no CCT has one."""
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise InvalidModel(
                f"{path} cannot be used: {name} is {array.dtype.name}, and all weights of a CCT "
                "are floating-point numbers; save those it was made of"
            )


def check_answers(model: keras.Model, source: str) -> tuple[str, ...]:
    """Refuses a model that answers an image with logits that are no numbers.

    Finite weights do not say that what they compute is finite. A flat grey image and one of random
    pixels tell, the same ones each time.

    Args:
        model: an image classifier.
        source: what the user wrote, for the message.

    Returns:
        A line if the model was not tried, because that would need too much memory.

    Raises:
        InvalidModel: not finite, or the model cannot be run.
    """
    shape = image_shape(model)
    if _bytes_at_least(model) > _TRIED_BYTES:
        return (f"not tried: one image of {shape[0]}×{shape[1]} needs over 1 GiB of memory",)
    grey = np.full(shape, 127)
    random = np.random.default_rng(0).integers(0, 256, shape)
    images = np.repeat([grey, random], model.inputs[0].shape[0] or 1, axis=0).astype(np.float32)
    try:
        found = logits(model, images)
    # Layers raise whatever they like; every kind means that this model cannot be used.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidModel(f"{source} cannot be run: {reason}") from error
    wrong = found.size - int(np.isfinite(found).sum())
    if wrong:
        raise InvalidModel(
            f"{source} cannot be used: its weights are finite, but {wrong} of the {found.size} "
            "logits that it gives for a grey image and one of random pixels are not"
        )
    return ()


def _bytes_at_least(model: keras.Model) -> int:
    """Returns what an image takes, or the scores of attention where they take more."""
    needed = math.prod(image_shape(model))
    if isinstance(model, CCT):
        needed = max(needed, model.spec.heads * math.prod(token_grid(model.spec)) ** 2)
    return 4 * needed


def check_finite(arrays: Arrays, path: Path) -> None:
    """Raises ``InvalidModel`` naming the first tensor with a NaN or an infinity in it."""
    for name, array in arrays.items():
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            raise InvalidModel(
                f"{path} cannot be used: {wrong} of {array.size} numbers of {name} are not finite"
            )


def check_same_names(found: Arrays, wanted: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuses a file in which a tensor is missing, left over, or of another shape.

    Args:
        found: what the file holds.
        wanted: shape of every tensor that the architecture has.
        path: the file, for the message.

    Raises:
        InvalidModel: naming the first three of each kind.
    """
    both = wanted.keys() & found.keys()
    wrong = {
        "missing": [name for name in wanted if name not in both],
        "left over": [name for name in found if name not in both],
        "of another shape": [
            f"{name} {found[name].shape} instead of {wanted[name]}"
            for name in wanted
            if name in both and found[name].shape != wanted[name]
        ],
    }
    parts = [f"{what}: {_first(names)}" for what, names in wrong.items() if names]
    if parts:
        raise InvalidModel(
            f"{path} does not hold the {len(wanted)} tensors of its architecture; "
            f"{'; '.join(parts)}"
        )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
