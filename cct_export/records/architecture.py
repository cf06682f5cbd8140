"""What a model is made of: layers, their parameters and what they cost at inference."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A step of a model at inference.

    Attributes:
        name: block and place in it.
        kind: what it does.
        shape: of its output, without the batch axis; None for one that is open.
        trainable: parameters that training changes.
        fixed: weights that it does not, such as a table of sines.
        macs: multiply-accumulates of one image; None if not known.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    trainable: int
    fixed: int
    macs: int | None


@dataclass(frozen=True)
class Cost:
    """What a CCT costs at inference, in one of its forms.

    Attributes:
        steps: things to compute, see ``graph.steps``.
        parameters: numbers in all constants.
        macs: multiply-accumulates of one image.
    """

    steps: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Architecture:
    """A model, as it computes one image.

    Attributes:
        name: what the user wrote.
        image_shape: height, width, channels.
        classes: number of logits.
        labels: names of the classes, empty if not known.
        layers: in order.
        spec: the ``ModelSpec`` as plain JSON types; None of a model that is no CCT.
        folded: what the exported file costs; None of a model that is no CCT.
    """

    name: str
    image_shape: tuple[int, ...]
    classes: int
    labels: tuple[str, ...]
    layers: tuple[Layer, ...]
    spec: dict[str, Any] | None = None
    folded: Cost | None = None

    @property
    def trainable(self) -> int:
        """Parameters that training changes."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def fixed(self) -> int:
        """Weights that training does not change."""
        return sum(layer.fixed for layer in self.layers)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of one image, unfolded; None if not known."""
        known = [layer.macs for layer in self.layers if layer.macs is not None]
        return sum(known) if len(known) == len(self.layers) else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types: totals, what the exported file costs, and every layer."""
        totals = {"trainable": self.trainable, "fixed": self.fixed, "macs": self.macs}
        return {
            "name": self.name,
            "image_shape": list(self.image_shape),
            "classes": self.classes,
            "labels": list(self.labels),
            "totals": totals | {"parameters": self.trainable + self.fixed},
            "folded": None if self.folded is None else asdict(self.folded),
            "spec": self.spec,
            "layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in self.layers],
        }
