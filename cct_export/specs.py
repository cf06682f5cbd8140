"""What is asked for: frozen records, standard library only."""

from dataclasses import asdict, dataclass
from typing import Any

# The preset that commands use where no MODEL is given.
DEFAULT_MODEL = "cct_keras_io"


@dataclass(frozen=True)
class ModelSpec:
    """Architecture of a Compact Convolutional Transformer (arXiv:2104.05704).

    Attributes:
        name: preset name, or any name of the user's.
        image_size: height and width of the input in pixels.
        channels: channels of the input.
        classes: number of logits.
        filters: output channels of each tokenizer convolution; the last is the width of the
            transformer.
        kernel: size of the tokenizer's convolutions.
        layers: number of transformer blocks.
        heads: attention heads per block.
        head_dim: width of one head's query and key.
        mlp_units: widths of the dense layers of a block's MLP; the last is the width of the
            transformer.
        positional: position embedding, ``learnable`` or ``none``.
        dropout: dropout rate in attention and MLP while training, 0 to 1.
        stochastic_depth: rate at which the last block is dropped while training, 0 to below 1;
            earlier blocks linearly less, the first never.
        labels: names of the classes, in the order of the logits; empty if not known.
    """

    name: str = "cct"
    image_size: int = 32
    channels: int = 3
    classes: int = 10
    filters: tuple[int, ...] = (64, 128)
    kernel: int = 3
    layers: int = 2
    heads: int = 2
    head_dim: int = 128
    mlp_units: tuple[int, ...] = (128, 128)
    positional: str = "learnable"
    dropout: float = 0.1
    stochastic_depth: float = 0.1
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON has no tuples: a spec read back from a file must equal the one that was written.
        for field in ("filters", "mlp_units", "labels"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not (self.filters and self.mlp_units):
            raise ValueError("filters and mlp_units must name one width at least")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be 0 to 1, not {self.dropout}")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be 0 to below 1, not {self.stochastic_depth}")
        if self.positional not in ("learnable", "none"):
            raise ValueError(f"positional must be 'learnable' or 'none', not {self.positional!r}")
        if self.labels and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels for {self.classes} classes")
        if self.mlp_units[-1] != self.width:
            raise ValueError(
                f"the last of mlp_units ({self.mlp_units[-1]}) must equal the width ({self.width})"
            )

    @property
    def width(self) -> int:
        """Channels of every token."""
        return self.filters[-1]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        fields = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}


@dataclass(frozen=True)
class TrainSpec:
    """A training run; the defaults are the recipe of the keras.io example.

    Attributes:
        data: what ``--data`` says.
        epochs: passes over the training images.
        batch: images per step.
        learning_rate: of AdamW, constant.
        weight_decay: of AdamW, decoupled.
        label_smoothing: 0 to 1.
        validation: fraction of the training images held out to choose the best epoch.
        seed: of initial weights, order, augmentation, dropout and the held-out images.
    """

    data: str
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    validation: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class ExportSpec:
    """What file to make of a model.

    Attributes:
        format: ``tflite`` or ``onnx``.
        scheme: name of a quantization scheme.
        io: type of the image input, ``float32``, ``uint8`` or ``int8`` (pixel minus 128); logits
            are float32 always.
        dynamic_batch: any number of images at once, else one (ONNX only; TFLite is always one).
        opset: ONNX operator set; None for the newest that the way of conversion is proven with.
        no_fold: names of folds to leave out, see ``graph.fold``.
    """

    format: str
    scheme: str = "none"
    io: str = "float32"
    dynamic_batch: bool = False
    opset: int | None = None
    no_fold: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantScheme:
    """A way to make a model smaller.

    Attributes:
        name: what ``--quantize`` says.
        weights: stored type of the weights of convolutions and dense layers.
        convolution: how a convolution's activations are quantized: ``static`` (calibrated),
            ``dynamic`` (at run time) or ``float``.
        dense: the same for dense layers.
        about: one line for people.
    """

    name: str
    weights: str
    convolution: str
    dense: str
    about: str

    @property
    def calibrated(self) -> bool:
        """Whether images are needed to quantize."""
        return "static" in (self.convolution, self.dense)


@dataclass(frozen=True)
class BenchSpec:
    """How to measure latency.

    Attributes:
        runtime: ``litert``, ``onnxruntime`` or ``keras``.
        threads: threads the engine may use.
        warmup_s: seconds of untimed runs before the first timed one.
        min_runs: timed runs at least.
        min_s: seconds of timed runs at least.
    """

    runtime: str
    threads: int = 1
    warmup_s: float = 0.5
    min_runs: int = 50
    min_s: float = 1.0
