"""The typed content of results.json: what was measured of one model on one machine."""

import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cct_export.records import MachineInfo

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Parity:
    """How far a file's logits are from those of the Keras model.

    Attributes:
        sqnr_db: signal to quantization noise ratio of the logits.
        max_abs: largest absolute difference of a logit.
        top1_agreement: share of the images with the same best class, 0 to 1.
        samples: number of images.
    """

    sqnr_db: float
    max_abs: float
    top1_agreement: float
    samples: int


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a file on labelled test images.

    Attributes:
        top1: 0 to 1.
        top5: 0 to 1.
        samples: number of images.
        top1_interval: Wilson interval of ``top1`` at 95 %.
        top5_interval: the same of ``top5``.
        calibration_error: expected calibration error over 15 bins, 0 to 1.
    """

    top1: float
    top5: float
    samples: int
    top1_interval: tuple[float, float] = (0.0, 1.0)
    top5_interval: tuple[float, float] = (0.0, 1.0)
    calibration_error: float | None = None


@dataclass(frozen=True)
class MatmulRate:
    """The rate of one large matrix product: the compute roof of the machine.

    Attributes:
        float32: multiply-accumulates per second.
        int8: the same of uint8 by int8.
    """

    float32: float
    int8: float


@dataclass(frozen=True)
class MeasuredFile:
    """One file: how it was made, what it computes, and how long it takes.

    Attributes:
        name: ``cct-export`` or ``stock``, the format, and the scheme.
        format: ``tflite`` or ``onnx``.
        precision: ``float32`` or ``int8``: the matrix product that its roofline is of.
        baseline: name of the stock file that it is compared with; its own name if it is one.
        error: why there is no such file; empty if there is one.
        export_s: seconds that making it took.
        size_bytes: of the file.
        parity: with the Keras model.
        accuracy: on all test images.
        macs: multiply-accumulates of one image.
        delegated: operators that the engine's delegate runs, and operators in all.
        partitions: parts of the graph that the delegate runs.
        times_ns: every timed run, by number of threads.
    """

    name: str
    format: str
    precision: str
    baseline: str
    error: str = ""
    export_s: float = 0.0
    size_bytes: int | None = None
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    macs: int | None = None
    delegated: tuple[int | None, int | None] = (None, None)
    partitions: int | None = None
    times_ns: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether cct-export made it."""
        return self.baseline != self.name

    @property
    def scheme(self) -> str:
        """The last word of its name."""
        return self.name.split()[-1]

    def median_ms(self, threads: int) -> float:
        """Returns the median latency."""
        return statistics.median(self.times_ns[threads]) / 1e6


@dataclass(frozen=True)
class Results:
    """Everything that one run of ``run.py`` measured.

    Attributes:
        command: the run.
        model: its name.
        parameters: of the Keras model.
        data: name of the images.
        machine: where it ran.
        versions: of the libraries.
        parity_images: test images that parity is of.
        cold_export_s: seconds of ``cct-export tflite`` in a new process, verification included.
        roofline: rates of a matrix product, by number of threads.
        files: stock files first.
    """

    command: str
    model: str
    parameters: int
    data: str
    machine: MachineInfo
    versions: dict[str, str]
    parity_images: int
    cold_export_s: float
    roofline: dict[int, MatmulRate]
    files: tuple[MeasuredFile, ...]

    @property
    def threads(self) -> int:
        """The first of the thread counts: the one that most tables are of."""
        return next(iter(self.roofline))

    @property
    def measured(self) -> tuple[MeasuredFile, ...]:
        """The files that could be made and run."""
        return tuple(file for file in self.files if not file.error)

    def file(self, name: str) -> MeasuredFile | None:
        """Returns the measured file of that name, None if there is none."""
        return next((file for file in self.measured if file.name == name), None)

    def size_ratio(self, name: str, baseline: str) -> float | None:
        """Returns the size of a file over another's; None if either is missing."""
        file, other = self.file(name), self.file(baseline)
        if file is None or other is None or not (file.size_bytes and other.size_bytes):
            return None
        return file.size_bytes / other.size_bytes

    def latency_ratio(self, name: str, baseline: str, threads: int) -> float | None:
        """Returns the median latency of a file over another's; None if either is missing."""
        file, other = self.file(name), self.file(baseline)
        if file is None or other is None:
            return None
        return file.median_ms(threads) / other.median_ms(threads)

    def roofline_share(self, file: MeasuredFile, threads: int) -> float | None:
        """Returns how close a file comes to the compute roof, 0 to 1; None if that is not known.

        It is the time of the multiply-accumulates alone over the median latency
        (https://doi.org/10.1145/1498765.1498785, without its memory roof).
        """
        if file.macs is None:
            return None
        rate = self.roofline[threads]
        macs_per_s = rate.int8 if file.precision == "int8" else rate.float32
        return file.macs / macs_per_s * 1e3 / file.median_ms(threads)


def read(folder: str | Path) -> Results:
    """Returns the results in a folder, such as ``amd-epyc/cct_7_3x1_32`` below ``RESULTS``."""
    return msgspec.json.decode((RESULTS / folder / "results.json").read_bytes(), type=Results)


def write(results: object, folder: Path) -> None:
    """Writes records as ``results.json``, with all times of a file on one line."""
    text = msgspec.json.format(msgspec.json.encode(results), indent=1).decode()
    text = re.sub(r"\[[\d\s,]+\]", lambda times: "".join(times[0].split()), text)
    (folder / "results.json").write_text(text + "\n")
