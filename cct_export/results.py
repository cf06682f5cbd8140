"""What was found out: frozen records, to JSON."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Under this name a file carries the contract of its artifact.
CONTRACT_KEY = "cct_export.json"


def _json_number(value: float) -> float | None:
    """JSON has no infinity and no NaN: both become null."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Artifact:
    """An exported file.

    Attributes:
        path: the file.
        format: ``tflite`` or ``onnx``.
        scheme: quantization scheme.
        io: type of the image input, ``float32``, ``uint8`` or ``int8``.
        source: what it was made of, as the user said it.
        source_sha256: checksum of the ``.keras`` or ``.weights.h5`` file it was made of.
        image_shape: height, width, channels.
        batch: images per call; None for any number.
        classes: number of logits.
        labels: class names, in the order of the logits; empty if not known.
        calibration: which images calibrated it; empty if none.
        quantization: how it was calibrated, and which steps compute in integers; empty if none.
        versions: library versions it was made with.
        size_bytes: size of the file.
        sha256: checksum of the file.
    """

    path: Path
    format: str
    scheme: str
    io: str
    source: str
    source_sha256: str
    image_shape: tuple[int, int, int]
    batch: int | None
    classes: int
    labels: tuple[str, ...]
    calibration: str
    versions: dict[str, str]
    quantization: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    sha256: str = ""

    def contract(self) -> dict[str, Any]:
        """Returns what is stored inside the file itself: all but path, size and checksum."""
        fields = asdict(self)
        for outside in ("path", "size_bytes", "sha256", "classes"):
            del fields[outside]
        height, width, channels = self.image_shape
        fields["input"] = {
            "layout": "NHWC",
            "shape": [self.batch, height, width, channels],
            "dtype": self.io,
            "range": [-128, 127] if self.io == "int8" else [0, 255],
            "preprocessing": "pixel - 128" if self.io == "int8" else "raw pixels",
            "channels": "RGB" if channels == 3 else "grey",
        }
        fields["output"] = {"name": "logits", "dtype": "float32", "classes": self.classes}
        return fields

    def to_dict(self) -> dict[str, Any]:
        """Returns the contract with path, size and checksum, as plain JSON types."""
        return {
            "path": str(self.path),
            "format": self.format,
            "scheme": self.scheme,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            **{k: v for k, v in self.contract().items() if k not in ("format", "scheme")},
        }


@dataclass(frozen=True)
class StepError:
    """What quantization does to one step.

    Attributes:
        step: name of the step and of the tensor it makes.
        kind: what it does.
        inputs: how it reads: ``float``, ``static`` or ``dynamic``.
        weight_bits: bits of its weights; None for floats, or none at all.
        sqnr_db: power of the float tensor over power of the difference, in dB: the noise of all
            steps so far; infinite if they are equal.
        low: smallest value of the tensor over the calibration images.
        high: largest value.
        grid_low: smallest value that its integers stand for; None if it is stored as floats.
        grid_high: largest.
        clipped: share of the values beyond the grid, 0 to 1.
        alone_db: noise ratio of the logits with this step quantized and no other.
        without_db: noise ratio of the logits with every other step quantized.
    """

    step: str
    kind: str
    inputs: str
    weight_bits: int | None
    sqnr_db: float
    low: float
    high: float
    grid_low: float | None
    grid_high: float | None
    clipped: float | None
    alone_db: float | None = None
    without_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            key: _json_number(value) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class QuantizationReport:
    """What a scheme does to a model, step by step.

    Attributes:
        model: what the user said.
        format: of the file.
        scheme: quantization scheme.
        calibration: which images calibrated.
        images: which images the figures are of.
        sqnr_db: noise ratio of the logits.
        steps: every step with integers, in the order in which they are computed.
        kernels: operators that ONNX Runtime ran for one image, by kind; empty for TFLite.
    """

    model: str
    format: str
    scheme: str
    calibration: str
    images: str
    sqnr_db: float
    steps: tuple[StepError, ...]
    kernels: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        fields = {field: getattr(self, field) for field in self.__dataclass_fields__}
        return fields | {
            "sqnr_db": _json_number(self.sqnr_db),
            "steps": [step.to_dict() for step in self.steps],
        }


@dataclass(frozen=True)
class ParityReport:
    """How far a candidate's logits are from the reference's, on the same images.

    Attributes:
        reference: the model the candidate should equal.
        candidate: the file that was run.
        scheme: its quantization scheme, which decides the policy.
        images: where the images are from.
        samples: number of images.
        max_abs: largest absolute difference of a logit.
        mean_abs: mean absolute difference.
        cosine: mean cosine between the two logit vectors of an image, each minus its mean.
        sqnr_db: power of the reference logits over power of the difference, in dB, each image's
            logits minus their mean, which a softmax does not see; infinite if they are equal.
        top1_agreement: share of the decided images with the same best class, 0 to 1.
        decided: images whose two best reference logits differ by more than the error the scheme
            may have; only these count for agreement.
        finite: no NaN and no infinity in the candidate's logits.
        constant: the candidate answers one class for every image, the reference does not (one
            that does so itself is not the export's fault).
        failures: what the policy demands and was not reached, one line each.
    """

    reference: str
    candidate: str
    scheme: str
    images: str
    samples: int
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float
    top1_agreement: float
    decided: int
    finite: bool
    constant: bool
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the policy of the scheme holds."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; figures that are not finite become null."""
        fields = asdict(self) | {"passed": self.passed, "failures": list(self.failures)}
        return {k: _json_number(v) if isinstance(v, float) else v for k, v in fields.items()}


@dataclass(frozen=True)
class Accuracy:
    """Share of test images whose label is the best, or among the five best, 0 to 1."""

    top1: float
    top5: float
    samples: int
    data: str


@dataclass(frozen=True)
class BenchResult:
    """What one artifact did on one engine.

    Attributes:
        artifact: path, format, scheme, size and checksum of the file.
        runtime: engine, version, accelerator, threads, delegated and total nodes.
        batch: images per run.
        times_ns: every timed run, in nanoseconds, in order.
        load_ms: making the session.
        first_inference_ms: the first run after that.
        peak_rss_bytes: largest resident memory of a process that did nothing else, None where
            the OS does not tell.
        accuracy: on labelled images, if asked for.
        parity: against the golden logits in the sidecar, if there is one.
        device: where it ran.
        warnings: what to know before believing the figures.
    """

    artifact: dict[str, Any]
    runtime: dict[str, Any]
    batch: int
    times_ns: tuple[int, ...]
    load_ms: float
    first_inference_ms: float
    peak_rss_bytes: int | None
    accuracy: Accuracy | None = None
    parity: ParityReport | None = None
    device: str = "local"
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, each with its probability, best first."""

    image: Path
    top: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "image": str(self.image),
            "top": [{"label": label, "probability": share} for label, share in self.top],
        }


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, with its quantization if it has one.

    Attributes:
        name: as in the file; of an end the name in the signature, where there is one.
        dtype: ``float32``, ``int8`` and so on.
        shape: sizes, None for one that is open; None if the file does not tell.
        granularity: ``tensor``, ``channel`` or ``block``: what shares a scale. Empty if the tensor
            is not quantized.
        axis: the axis along which the channels lie, None unless there are any.
        scales: ``real = scale · (stored − zero point)``, one per channel; empty where none is
            found in the file.
        zero_points: one per scale, or one for all; empty if it is 0.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    granularity: str = ""
    axis: int | None = None
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; scales that are not finite become null."""
        return asdict(self) | {"scales": [_json_number(scale) for scale in self.scales]}


@dataclass(frozen=True)
class Operator:
    """A step of a file.

    Attributes:
        index: its place in the file, from 0 on.
        kind: as the format calls it, such as ``CONV_2D`` or ``Conv``.
        shape: of its first output, see ``Inspection``; None if unknown, as is a size.
        macs: multiply-accumulates, see ``Inspection``; None if a shape that decides is unknown.
        parameters: elements of the constant weights that it reads.
        weight_dtype: type in which the largest of them is stored, None if there is none.
        partition: which part of the delegate, counted from 0, runs it; None if none does, or if
            the engine's own optimizations did away with it.
    """

    index: int
    kind: str
    shape: tuple[int | None, ...] | None
    macs: int | None
    parameters: int
    weight_dtype: str | None
    partition: int | None


@dataclass(frozen=True)
class OperatorKind:
    """All operators of one kind.

    Attributes:
        name: as the format calls it.
        count: operators.
        macs: of those where they are known.
        parameters: summed over the operators; one that two of them read counts twice.
        delegated: how many the delegate runs.
    """

    name: str
    count: int
    macs: int
    parameters: int
    delegated: int


@dataclass(frozen=True)
class Inspection:
    """What is in an exported file, or any other TFLite or ONNX file.

    Shapes and multiply-accumulates are per image: an open batch counts as 1. In a file that
    fixes another batch they are per run. Only convolutions and products of matrices have
    multiply-accumulates, other operators count 0. The body of a loop or branch counts once.

    Attributes:
        path: the file.
        format: ``tflite`` or ``onnx``.
        scheme: quantization scheme that the contract in the file names, None without one.
        size_bytes: size of the file.
        inputs: what it takes.
        outputs: what it gives.
        operators: every step, in order.
        parameters: elements of constant weights, each tensor once however many read it. Scales,
            zero points, shapes, axes, paddings and single numbers of rank 0 are none.
        tensors: number of tensors in the file, constants too.
        quantized: the tensors that are stored or computed as integers standing for real numbers.
        engine: name and version of what runs such a file.
        nodes: steps that the engine runs after its own optimizations, None if it cannot.
        delegated: how many of them the delegate took, None if the engine cannot run it.
        partitions: into how many parts it took them, None if the engine cannot run it.
        warnings: what to know before believing the figures.
    """

    path: Path
    format: str
    scheme: str | None
    size_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    parameters: int
    tensors: int
    quantized: tuple[Tensor, ...]
    engine: str
    nodes: int | None
    delegated: int | None
    partitions: int | None
    warnings: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all operators where they are known."""
        return sum(operator.macs or 0 for operator in self.operators)

    def kinds(self) -> tuple[OperatorKind, ...]:
        """Returns the operators by kind: most multiply-accumulates first, then most operators."""
        by_name: dict[str, list[Operator]] = {}
        for operator in self.operators:
            by_name.setdefault(operator.kind, []).append(operator)
        found = [
            OperatorKind(
                name,
                len(group),
                sum(operator.macs or 0 for operator in group),
                sum(operator.parameters for operator in group),
                sum(operator.partition is not None for operator in group),
            )
            for name, group in by_name.items()
        ]
        return tuple(sorted(found, key=lambda kind: (-kind.macs, -kind.count, kind.name)))

    def totals(self) -> dict[str, int | None]:
        """Returns the figures of the whole file by name."""
        return {
            "size_bytes": self.size_bytes,
            "macs": self.macs,
            "parameters": self.parameters,
            "operators": len(self.operators),
            "tensors": self.tensors,
            "nodes": self.nodes,
            "delegated": self.delegated,
            "partitions": self.partitions,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types: ends, totals, kinds, every operator and quantized tensor."""
        return {
            "path": str(self.path),
            "format": self.format,
            "scheme": self.scheme,
            "engine": self.engine,
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
            "totals": self.totals(),
            "kinds": [asdict(kind) for kind in self.kinds()],
            "operators": [asdict(operator) for operator in self.operators],
            "quantized": [tensor.to_dict() for tensor in self.quantized],
            "warnings": list(self.warnings),
        }
