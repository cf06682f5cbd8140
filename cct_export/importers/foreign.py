"""What every importer gives, and what it checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cct_export.errors import InvalidModel

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Foreign:
    """A model that somebody else's code saved, as one of ours.

    Attributes:
        model: with the weights of the file.
        kind: what the file is, in words.
        tensors: how many there are in the file; all of them are in the model.
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
