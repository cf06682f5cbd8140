"""The record that every importer returns, and the checks that importers share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.importers.equivalence import logits
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import image_shape
from cct_export.model.sizes import token_grid
from cct_export.specs import ImportSpec

# Arrays by their names in a file.
Arrays = Mapping[str, np.ndarray]
# A model that needs more memory for one image is not run.
_MAX_RUN_BYTES = 1 << 30


@dataclass(frozen=True)
class ImportedModel:
    """A Keras model with the weights of a checkpoint, and an account of the import.

    Attributes:
        model: the model.
        kind: the kind of checkpoint, in words.
        tensors: number of tensors in the file, or in the state dict chosen from it; all of them
            are used.
        parameters: number of values in these tensors.
        notes: what was inferred or changed, a line each.
        difference: the largest difference from the source's logits, if the source was run.
        images: number of images it was run on.
    """

    model: keras.Model
    kind: str
    tensors: int
    parameters: int
    notes: tuple[str, ...] = ()
    difference: float | None = None
    images: int = 0

    @classmethod
    def from_arrays(
        cls, model: keras.Model, kind: str, arrays: Arrays, notes: tuple[str, ...] = ()
    ) -> "ImportedModel":
        """Returns the record of a model whose weights are ``arrays``."""
        parameters = sum(array.size for array in arrays.values())
        return cls(model, kind, len(arrays), parameters, notes)


def check_options(path: Path, options: ImportSpec, **reasons: str) -> None:
    """Refuses options that have no effect.

    Args:
        path: the file, for the message.
        options: of the import.
        **reasons: by name of an option, why it has no effect on such a file.

    Raises:
        InvalidRequest: one of these options is set.
    """
    for name, reason in reasons.items():
        if getattr(options, name) is not None:
            raise InvalidRequest(f"--{name} does nothing for {path}: {reason}; leave it out")


def check_dtypes(arrays: Arrays, path: Path) -> None:
    """Raises ``InvalidModel`` with the name of the first tensor that is not floating point."""
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise InvalidModel(
                f"{path} cannot be used: {name} is {array.dtype.name}, and all weights of a CCT "
                "are floating-point numbers; save its floating-point weights"
            )


def check_finite(arrays: Arrays, path: Path) -> None:
    """Raises ``InvalidModel`` with the name of the first tensor that has a NaN or an infinity."""
    for name, array in arrays.items():
        invalid = array.size - int(np.isfinite(array).sum())
        if invalid:
            raise InvalidModel(
                f"{path} cannot be used: {invalid} of {array.size} numbers of {name} are not finite"
            )


def check_logits(model: keras.Model, source: str) -> tuple[str, ...]:
    """Refuses a model whose logits are not finite: finite weights may still overflow.

    It is run on a flat grey image and on one of random pixels, the same ones every time.

    Args:
        model: an image classifier.
        source: what the user wrote, for the message.

    Returns:
        A line if the model was not run because it would need too much memory.

    Raises:
        InvalidModel: not finite, or the model cannot be run.
    """
    shape = image_shape(model)
    if _min_bytes(model) > _MAX_RUN_BYTES:
        return (f"not run: one image of {shape[0]}×{shape[1]} needs over 1 GiB of memory",)
    grey = np.full(shape, 127)
    random = np.random.default_rng(0).integers(0, 256, shape)
    images = np.asarray([grey, random], np.float32)
    try:
        outputs = logits(model, images)
    # Layers raise any kind of exception; in each case the model cannot be used.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidModel(f"{source} cannot be run: {reason}") from error
    invalid = outputs.size - int(np.isfinite(outputs).sum())
    if invalid:
        raise InvalidModel(
            f"{source} cannot be used: its weights are finite, but {invalid} of the {outputs.size} "
            "logits that it gives for a grey image and one of random pixels are not"
        )
    return ()


def _min_bytes(model: keras.Model) -> int:
    """Returns the bytes of an image, or of the attention scores if they are more."""
    values = math.prod(image_shape(model))
    if isinstance(model, CCT):
        values = max(values, model.spec.heads * math.prod(token_grid(model.spec)) ** 2)
    return 4 * values


def check_shapes(arrays: Arrays, expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuses a file in which a tensor is missing, left over, or of another shape.

    Args:
        arrays: the content of the file.
        expected: shape of every tensor of the architecture.
        path: the file, for the message.

    Raises:
        InvalidModel: with the first three names of each kind.
    """
    common = expected.keys() & arrays.keys()
    differences = {
        "missing": [name for name in expected if name not in common],
        "left over": [name for name in arrays if name not in common],
        "of another shape": [
            f"{name} {arrays[name].shape} instead of {expected[name]}"
            for name in expected
            if name in common and arrays[name].shape != expected[name]
        ],
    }
    parts = [f"{kind}: {_first_three(names)}" for kind, names in differences.items() if names]
    if parts:
        raise InvalidModel(
            f"{path} does not hold the {len(expected)} tensors of its architecture; "
            f"{'; '.join(parts)}"
        )


def _first_three(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
