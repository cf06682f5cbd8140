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
