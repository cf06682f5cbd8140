"""Architecture of a model, and options of an import."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from cct_export.bounds import Checked, Range
from cct_export.specs.loading import check_labels

# The preset that commands use where no MODEL is given.
DEFAULT_MODEL = "cct_2_3x2_32"
# Data sets that are known by name, see ``data.named``.
DATA_SETS = ("cifar10", "cifar100", "digits")
# The file that makes a folder a SavedModel.
SAVED_MODEL_FILE = "saved_model.pb"
BLOCKS = ("keras", "paper")
# Of the MLP of a transformer block, and the two forms of the first.
ACTIVATIONS = ("gelu", "relu")
GELUS = ("tanh", "exact")
# Normalizations of the paper's code, named after the training images.
NORMALIZATIONS = ("cifar10", "cifar100", "imagenet", "none")
POSITIONALS = ("learnable", "sine", "none")
NORM_EPSILON = 1e-5
# JSON of any shape, such as the configuration of a Keras layer.
JSONObject = dict[str, Any]
# Larger than any model; a size may come from a file of anyone.
SIZE = Range(1, 10**9, whole=True)
# Of an imported model.
IMAGE_SIZE = Range(8, 4096, whole=True)
CLASSES = Range(2, 10**9, whole=True)
_SIZES = ("image_size", "channels", "classes", "kernel", "stride", "heads", "head_dim")
# Drops samples independently and scales up the others, the same unscaled, or drops whole batches.
STOCHASTIC_DEPTH_MODES = ("sample", "sample-unscaled", "batch")


@dataclass(frozen=True)
class ModelSpec:
    """Architecture of a Compact Convolutional Transformer (arXiv:2104.05704).

    Attributes:
        name: of a preset, or any other name.
        image_size: height and width of the input in pixels.
        channels: channels of the input.
        classes: number of logits.
        filters: output channels of each tokenizer convolution; the last is the width of the
            transformer.
        kernel: size of the tokenizer's convolutions.
        stride: of the tokenizer's convolutions.
        padding: zeros around the input of each of them.
        block: ``keras`` for the transformer of the keras.io example, ``paper`` for that of the
            authors. They differ in the place of the norms, GELU, biases, and the padding of the
            tokenizer's pools, see ``model.blocks``.
        layers: number of transformer blocks.
        heads: attention heads per block.
        head_dim: width of one head's query and key.
        mlp_units: widths of the dense layers of a block's MLP; the last is the width of the
            transformer.
        activation: of the MLP: ``gelu``, or ``relu``, which is part of a dense layer in an
            exported file and runs on any chip.
        gelu: of the keras block: ``tanh`` for the approximation that the example uses in Keras 3,
            ``exact`` for the error function of Keras 2; the paper's block is exact.
        positional: position embedding, ``learnable``, ``sine`` or ``none``.
        mean: of each channel, subtracted from pixels scaled to 0–1; empty for 0.
        std: of each channel, divided by after that; empty for 1.
        dropout: dropout rate while training, 0 to 1: in attention and MLP; in attention alone of
            the paper's block.
        stochastic_depth: rate at which the last block is dropped while training, 0 to below 1;
            earlier blocks linearly less, the first never.
        stochastic_depth_mode: which branches are dropped together, see ``STOCHASTIC_DEPTH_MODES``.
        labels: class names in the order of the logits; empty if unknown.
    """

    name: str = "cct"
    image_size: int = 32
    channels: int = 3
    classes: int = 10
    filters: tuple[int, ...] = (64, 128)
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    block: str = "keras"
    layers: int = 2
    heads: int = 2
    head_dim: int = 128
    mlp_units: tuple[int, ...] = (128, 128)
    activation: str = "gelu"
    gelu: str = "tanh"
    positional: str = "learnable"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dropout: float = 0.1
    stochastic_depth: float = 0.1
    stochastic_depth_mode: str = "sample"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON has no tuples: a spec read back from a file must equal the one that was written.
        for field in ("filters", "mlp_units", "labels", "mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not (self.filters and self.mlp_units):
            raise ValueError("filters and mlp_units must name one width at least")
        self._check_sizes()
        Range(0, 1).check("dropout", self.dropout)
        Range(0, below=1).check("stochastic_depth", self.stochastic_depth)
        for name, known in (
            ("positional", POSITIONALS),
            ("block", BLOCKS),
            ("activation", ACTIVATIONS),
            ("gelu", GELUS),
            ("stochastic_depth_mode", STOCHASTIC_DEPTH_MODES),
        ):
            if getattr(self, name) not in known:
                choices = " or ".join(map(repr, known))
                raise ValueError(f"{name} must be {choices}, not {getattr(self, name)!r}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, self.channels):
                raise ValueError(f"{name} must name a value for each of {self.channels} channels")
        for value in self.mean:
            Range(-1000, 1000).check("each of mean", value)
        for value in self.std:
            Range(above=0, maximum=1000).check("each of std", value)
        if self.block == "paper" and self.heads * self.head_dim != self.width:
            raise ValueError(
                f"heads of the paper's block share the width of {self.width} equally: "
                f"{self.heads} of {self.head_dim} do not"
            )
        if self.labels and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels for {self.classes} classes")
        if self.mlp_units[-1] != self.width:
            raise ValueError(
                f"the last of mlp_units ({self.mlp_units[-1]}) must equal the width ({self.width})"
            )

    def _check_sizes(self) -> None:
        """Raises ``ValueError`` for invalid sizes: they may come from an untrusted file."""
        sizes = [(name, getattr(self, name), 1) for name in _SIZES]
        sizes += [(name, getattr(self, name), 0) for name in ("padding", "layers")]
        sizes += [
            (f"each of {name}", size, 1)
            for name in ("filters", "mlp_units")
            for size in getattr(self, name)
        ]
        for name, size, least in sizes:
            Range(least, SIZE.maximum, whole=True).check(name, size)

    @property
    def width(self) -> int:
        """Channels of every token."""
        return self.filters[-1]

    @property
    def rescaling(self) -> tuple[float | list[float], float | list[float]]:
        """Scale and offset of pixels 0–255, for all channels or for each."""
        if not (self.mean or self.std):
            return 1 / 255, 0.0
        mean = self.mean or (0.0,) * self.channels
        std = self.std or (1.0,) * self.channels
        scales = [1 / (255 * deviation) for deviation in std]
        return scales, [-m / deviation for m, deviation in zip(mean, std, strict=True)]

    def to_dict(self) -> JSONObject:
        """Returns the fields as plain JSON types."""
        fields = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}


@dataclass(frozen=True)
class ImportSpec(Checked):
    """Properties of an imported model that its file lacks, or that replace those in the file.

    Attributes:
        image_size: height and width in pixels; positions are interpolated to it. None for the
            file's.
        classes: number of logits; a number other than the file's resets the classifier.
        heads: attention heads per block, which a state dict does not contain; None for heads of 64
            channels, as in all models of the paper.
        normalize: one of ``NORMALIZATIONS``; None for that of the paper's code for such a model.
        gelu: one of ``GELUS``, for Keras files that do not contain it; None for the approximation
            of the keras.io example.
        labels: distinct class names in the order of the logits; empty if unknown.
    """

    image_size: Annotated[int, IMAGE_SIZE] | None = None
    classes: Annotated[int, CLASSES] | None = None
    heads: Annotated[int, SIZE] | None = None
    normalize: str | None = None
    gelu: str | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.labels)
        for label in self.labels:
            if self.labels.count(label) > 1:
                raise ValueError(f"label {label!r} occurs twice: give each class its own name")
        for name, known in (("normalize", NORMALIZATIONS), ("gelu", GELUS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
