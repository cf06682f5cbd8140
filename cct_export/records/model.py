"""A model: its layers and their cost, and what importing and pushing one did."""

from dataclasses import dataclass
from pathlib import Path

from cct_export.records.encoding import to_json
from cct_export.records.output import OutputContract
from cct_export.specs import JSONObject, ModelSpec


@dataclass(frozen=True)
class Layer:
    """A layer of a model, at inference.

    Attributes:
        name: block and place in it.
        kind: what it computes.
        shape: of its output, without the batch axis; None for a size that is open.
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
    """What a folded CCT costs at inference.

    Attributes:
        steps: operations, see ``graph.steps``.
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
        classes: number of logits; of several outputs, those of the first.
        labels: names of the classes, empty if not known.
        layers: in order.
        spec: hyperparameters of a CCT; None of another model.
        folded: cost of the exported file; None of a model that is traced.
        outputs: of a model that is no CCT, what each output holds.
    """

    name: str
    image_shape: tuple[int, ...]
    classes: int
    labels: tuple[str, ...]
    layers: tuple[Layer, ...]
    spec: ModelSpec | None = None
    folded: Cost | None = None
    outputs: tuple[OutputContract, ...] = ()

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

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types: totals, the cost of the exported file, and every layer."""
        totals = {
            "trainable": self.trainable,
            "fixed": self.fixed,
            "macs": self.macs,
            "parameters": self.trainable + self.fixed,
        }
        fields: JSONObject = to_json(self)
        return fields | {"totals": totals}


@dataclass(frozen=True)
class Imported:
    """A ``.keras`` file made of a model that other code saved.

    Attributes:
        path: the ``.keras`` file.
        source: what was imported.
        source_sha256: checksum of the file that held the weights.
        kind: the kind of checkpoint, in words.
        name: of the architecture, the preset's where it is one.
        image_shape: height, width and channels of the images it takes.
        classes: number of logits.
        tensors: number of tensors in the source; all of them were used.
        parameters: numbers in them.
        notes: what was concluded or changed, a line each.
        difference: the largest difference of a logit from the source's own; None where the source
            cannot be run.
        images: how many images that is from.
        size_bytes: of the file.
        sha256: of the file.
    """

    path: Path
    source: str
    source_sha256: str
    kind: str
    name: str
    image_shape: tuple[int, int, int]
    classes: int
    tensors: int
    parameters: int
    notes: tuple[str, ...]
    difference: float | None
    images: int
    size_bytes: int
    sha256: str

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types."""
        fields: JSONObject = to_json(self)
        return fields


@dataclass(frozen=True)
class SentFile:
    """A file of a Hugging Face repository.

    Attributes:
        name: its path in the repository.
        size_bytes: of its content.
        sha256: of its content.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Pushed:
    """A commit on the Hugging Face Hub, or what a dry run would have sent.

    Attributes:
        repository: ``OWNER/NAME``, or what the user wrote where nothing was sent.
        revision: the branch.
        private: whether a private repository was requested.
        files: the files of the commit.
        notes: what to know about it, a line each.
        commit: its checksum; None if nothing was sent.
        url: its address; None if nothing was sent.
    """

    repository: str
    revision: str
    private: bool
    files: tuple[SentFile, ...]
    notes: tuple[str, ...]
    commit: str | None = None
    url: str | None = None

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types."""
        fields: JSONObject = to_json(self)
        return fields
