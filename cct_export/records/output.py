"""What the outputs of a model hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cct_export.records.machine import Count

# Empty where a file does not say.
Activation = Literal["", "none", "softmax", "sigmoid"]


@dataclass(frozen=True)
class OutputContract:
    """What an output holds.

    Attributes:
        name: of the tensor.
        dtype: of its values.
        classes: size of its last axis; 0 in a graph that does not tell it.
        shape: its axes after the batch axis; all but the last are slots, such as the letters of a
            number plate, each with classes of its own. Empty in files of earlier versions.
        activation: ``none`` for logits, ``softmax`` or ``sigmoid`` for probabilities; empty if that
            is not known.
        softmax: whether the export appended the softmax, which the model does not have.
    """

    name: str
    dtype: str
    classes: Count
    shape: tuple[Count, ...] = ()
    activation: Activation = ""
    softmax: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """The axes after the batch axis, also in files of earlier versions."""
        return self.shape or (self.classes,)

    @property
    def width(self) -> int:
        """Values per image; 0 if the graph does not tell."""
        return math.prod(self.sizes)

    @property
    def has_slots(self) -> bool:
        """Whether an image gets more than one class of those that exclude each other."""
        return len(self.sizes) > 1

    @property
    def is_binary(self) -> bool:
        """Whether each value is a decision of its own, and not the class with the largest."""
        return self.activation == "sigmoid" or self.classes == 1

    @property
    def contents(self) -> str:
        """What the values are, in a word."""
        return {"none": "logits", "": "values"}.get(self.activation, "probabilities")

    @property
    def class_count(self) -> int:
        """Number of classes that have names: two where one value tells them apart."""
        return 2 if self.classes == 1 else self.classes

    def class_names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Returns ``labels`` if they are of this output, else the numbers of its classes."""
        fit = len(labels) == self.class_count
        return tuple(labels) if fit else tuple(map(str, range(self.class_count)))


def difference(claimed: Sequence[OutputContract], actual: Sequence[OutputContract]) -> str:
    """Compares the outputs that a contract describes with those of its graph.

    Names and types are not compared: engines have names of their own for tensors.

    Returns:
        Where they differ; empty if they do not, or if the graph does not tell.
    """
    if claimed and len(claimed) != len(actual):
        return f"it has {len(claimed)} outputs in the contract and {len(actual)} in the graph"
    for expected, found in zip(claimed, actual, strict=False):
        if expected.sizes[-1] != expected.classes:
            return f"output.classes is {expected.classes}, and its shape {expected.sizes}"
        if found.classes and expected.sizes != found.sizes:
            field = "shape" if expected.has_slots or found.has_slots else "classes"
            sizes = [each.sizes if field == "shape" else each.classes for each in (expected, found)]
            return f"output.{field} is {sizes[0]} in the contract and {sizes[1]} in the graph"
    return ""


def output_of(name: str, dtype: str, shape: Sequence[object] | None) -> OutputContract:
    """Returns what a graph tells about an output.

    Args:
        name: of the tensor.
        dtype: of its values.
        shape: with the batch axis; sizes that are no numbers are not known. None if nothing is.
    """
    sizes = [size for size in (shape or ())[1:] if isinstance(size, int) and size > 0]
    if not sizes or len(sizes) != len(shape or ()) - 1:
        return OutputContract(name, dtype, 0)
    return OutputContract(name, dtype, sizes[-1], tuple(sizes))
