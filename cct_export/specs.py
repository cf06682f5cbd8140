"""What is asked for: frozen records, standard library only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# How ranges are chosen from the values of calibration images, see ``quantize.ranges``; ``best`` is
# for each tensor the one with the least error of the logits.
METHODS = ("min-max", "percentile", "entropy", "mse")
BEST = "best"
ROUNDINGS = ("learned", "nearest")
# Instead of a scheme: the fastest on this machine that keeps the bounds.
AUTO = "auto"
# Processors that integers of ONNX files are chosen for.
TARGETS = ("x86", "arm64")
# The preset that commands use where no MODEL is given.
DEFAULT_MODEL = "cct_keras_io"


BLOCKS = ("keras", "paper")
GELUS = ("tanh", "exact")
# What the paper's code normalizes with, by the images that a model was trained on.
NORMALIZATIONS = ("cifar10", "cifar100", "imagenet", "none")
POSITIONALS = ("learnable", "sine", "none")
# Each sample by itself with the kept ones scaled up, the same without scaling, or the whole batch.
STOCHASTIC_DEPTHS = ("sample", "sample-unscaled", "batch")


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
        stride: of the tokenizer's convolutions.
        padding: zeros around the input of each of them.
        block: ``keras`` for the transformer of the keras.io example, ``paper`` for that of the
            authors: where the normalizations stand, which GELU, which layers have a bias, and what
            lies around the tokenizer's pools. See ``model.layers``.
        layers: number of transformer blocks.
        heads: attention heads per block.
        head_dim: width of one head's query and key.
        mlp_units: widths of the dense layers of a block's MLP; the last is the width of the
            transformer.
        gelu: of the keras block, ``tanh`` for the approximation that the example has in Keras 3,
            ``exact`` for the error function that it had in Keras 2; the paper's is exact.
        positional: position embedding, ``learnable``, ``sine`` or ``none``.
        mean: of each channel, subtracted after the pixels were divided by 255; empty for 0.
        std: of each channel, divided by after that; empty for 1.
        dropout: dropout rate while training, 0 to 1: in attention and MLP, of the paper's block in
            attention alone.
        stochastic_depth: rate at which the last block is dropped while training, 0 to below 1;
            earlier blocks linearly less, the first never.
        stochastic_depth_mode: what is dropped at once, see ``STOCHASTIC_DEPTHS``.
        labels: names of the classes, in the order of the logits; empty if not known.
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
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be 0 to 1, not {self.dropout}")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be 0 to below 1, not {self.stochastic_depth}")
        for name, known in (
            ("positional", POSITIONALS),
            ("block", BLOCKS),
            ("gelu", GELUS),
            ("stochastic_depth_mode", STOCHASTIC_DEPTHS),
        ):
            if getattr(self, name) not in known:
                said = " or ".join(map(repr, known))
                raise ValueError(f"{name} must be {said}, not {getattr(self, name)!r}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, self.channels):
                raise ValueError(f"{name} must name a value for each of {self.channels} channels")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0, not {self.std}")
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

    @property
    def width(self) -> int:
        """Channels of every token."""
        return self.filters[-1]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        fields = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}


@dataclass(frozen=True)
class ImportSpec:
    """What an imported model shall be that its file does not say, or says otherwise.

    Attributes:
        image_size: height and width in pixels; positions are interpolated to it. None leaves it.
        classes: number of logits; where it differs from the file's, the classifier begins anew.
        heads: attention heads per block, which no shape of the paper's tells; None for heads of 64
            channels, as all of the paper's models have.
        normalize: one of ``NORMALIZATIONS``; None for what the paper's code does for such a model.
        gelu: one of ``GELUS``, where the file of a Keras model does not tell; None for the
            approximation that the keras.io example has.
        labels: names of the classes, in the order of the logits; empty if not known.
    """

    image_size: int | None = None
    classes: int | None = None
    heads: int | None = None
    normalize: str | None = None
    gelu: str | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("image_size", 8), ("classes", 2), ("heads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {least} or more, not {value}")
        for name, known in (("normalize", NORMALIZATIONS), ("gelu", GELUS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


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
        freeze: parts whose weights stay as they are, see ``training.transfer.PARTS``; ``blocks:N``
            are the first N blocks.
    """

    data: str
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    validation: float = 0.1
    seed: int = 0
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # As of ModelSpec: JSON has no tuples.
        object.__setattr__(self, "freeze", tuple(self.freeze))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        return asdict(self) | {"freeze": list(self.freeze)}


@dataclass(frozen=True)
class ExportSpec:
    """What file to make of a model.

    Attributes:
        format: ``tflite`` or ``onnx``.
        scheme: name of a quantization scheme.
        io: type of the image input, ``float32``, ``uint8`` or ``int8`` (pixel minus 128); logits
            are float32, those of integers only of the image's type.
        dynamic_batch: any number of images at once, else one (ONNX only; TFLite is always one).
        opset: ONNX operator set; None for the newest that the way of conversion is proven with.
        no_fold: names of folds to leave out, see ``graph.fold``.
        target: the processor that integers are chosen for, of ``TARGETS`` (ONNX only).
    """

    format: str
    scheme: str = "none"
    io: str = "float32"
    dynamic_batch: bool = False
    opset: int | None = None
    no_fold: tuple[str, ...] = ()
    target: str = "x86"


@dataclass(frozen=True)
class QuantScheme:
    """A way to make a model smaller.

    Activations are ``float``; ``static``, integers on a grid that calibration found, read and
    made; ``static-inputs``, such integers read and floats made; or ``dynamic``, integers on a grid
    found at run time read and floats made.

    Attributes:
        name: what ``--quantize`` says.
        about: one line for people.
        weights: stored type of the weights of dense layers and, down to int8, of convolutions.
        convolution: how the activations of convolutions are stored.
        dense: the same for dense layers.
        scores: the same for products of queries and keys.
        rest: the same for everything else, ``float`` or ``static``.
        bits: of static activations.
        rows: whether every row has a grid of its own at run time, else every tensor.
    """

    name: str
    about: str
    weights: str = "float32"
    convolution: str = "float"
    dense: str = "float"
    scores: str = "float"
    rest: str = "float"
    bits: int = 8
    rows: bool = True

    @property
    def calibrated(self) -> bool:
        """Whether ranges of activations are needed."""
        modes = (self.convolution, self.dense, self.scores, self.rest)
        return any(mode.startswith("static") for mode in modes)

    @property
    def rounds(self) -> bool:
        """Whether weights become integers."""
        return self.weights.startswith("int")

    @property
    def integers_only(self) -> bool:
        """Whether no operator computes in float."""
        return self.rest == "static"


@dataclass(frozen=True)
class CalibrationSpec:
    """How integers are chosen.

    Attributes:
        samples: training images to calibrate on.
        methods: how the range of a tensor follows from its values, of ``METHODS``: one for all,
            or by tensor.
        rounding: of weights: ``learned`` on the calibration images, or ``nearest``.
        floats: steps that compute in float whatever the scheme says.
    """

    samples: int = 200
    methods: str | Mapping[str, str] = "mse"
    rounding: str = "learned"
    floats: tuple[str, ...] = ()


@dataclass(frozen=True)
class TuningSpec:
    """What to find out before a file is written.

    Attributes:
        best_ranges: for each tensor the method of ``METHODS`` with the least error of the logits.
        min_sqnr_db: signal to noise ratio of the logits at least; the worst steps go back to float
            until it holds. None for what the scheme gives.
        max_drop: points of top-1 accuracy that ``AUTO`` may lose at most, 0 to 100.
    """

    best_ranges: bool = False
    min_sqnr_db: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True)
class Timing:
    """How often and how long an artifact is run.

    Attributes:
        warmup_s: seconds of untimed runs before the first timed one, in every repeat.
        min_runs: timed runs at least, over all repeats.
        min_s: seconds of timed runs at least, over all repeats.
        repeats: times that everything is done again, in fresh processes.
        agreement: relative spread of the repeats' headlines above which they do not agree.
        headline: the percentile that stands for the latency.
    """

    warmup_s: float = 0.5
    min_runs: int = 50
    min_s: float = 1.0
    repeats: int = 1
    agreement: float = 0.05
    headline: int = 50


# quick follows TensorFlow Lite's benchmark_model, strict the single stream of MLPerf Mobile.
PROFILES = {
    "quick": Timing(),
    "strict": Timing(min_runs=1024, min_s=60.0, repeats=5, headline=90),
}


@dataclass(frozen=True)
class Delegation:
    """What an engine is to hand its work to.

    Attributes:
        name: an entry of the engine's table, or the entry's word, a colon and a path; ``default``
            for what the engine takes by itself.
        options: of the delegate, as the engine takes them: names and values.
        allow_fallback: whether operators that the delegate does not take may run elsewhere.
    """

    name: str = "default"
    options: tuple[tuple[str, str], ...] = ()
    allow_fallback: bool = False


DEFAULT_DELEGATION = Delegation()


@dataclass(frozen=True)
class BenchSpec:
    """On what an artifact is measured.

    Attributes:
        runtime: ``litert``, ``onnxruntime`` or ``keras``.
        threads: threads the engine may use.
        batch: images per run.
        delegation: what the engine hands its work to.
    """

    runtime: str
    threads: int = 1
    batch: int = 1
    delegation: Delegation = DEFAULT_DELEGATION

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "BenchSpec":
        """Returns the spec of which ``dataclasses.asdict`` made ``fields``, JSON in between."""
        wanted = dict(fields["delegation"])
        wanted["options"] = tuple((name, value) for name, value in wanted["options"])
        return cls(**fields | {"delegation": Delegation(**wanted)})


@dataclass(frozen=True)
class BenchJob:
    """One artifact on one engine.

    Attributes:
        path: an artifact, or a MODEL for the engine ``keras``.
        spec: engine, threads, batch and delegate.
    """

    path: Path
    spec: BenchSpec


@dataclass(frozen=True)
class BenchPasses:
    """What is measured beside latency and memory, each in a pass of its own.

    Attributes:
        accuracy_data: what ``--data`` says, None for no accuracy.
        operators: runs that the time of each operator is the median of, 0 for none.
        sustained_s: seconds of uninterrupted runs, 0 for none.
        benchmark_binary: program that measures on a phone, None for none.
    """

    accuracy_data: str | None = None
    operators: int = 0
    sustained_s: float = 0.0
    benchmark_binary: Path | None = None
