"""The typed content of the peers' results.json: files of ours and of others in their engines."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import msgspec
from record import RESULTS, Parity

from cct_export.records import MachineInfo

# Our file that those of a precision are compared with.
OURS = {
    "float32": "cct-export tflite float32",
    "bf16": "cct-export tflite float32",
    "fp16": "cct-export tflite float32",
    "int8": "cct-export tflite int8",
}


@dataclass(frozen=True)
class PeerRow:
    """One file in one engine.

    Attributes:
        name: maker, engine or format, and precision.
        engine: that runs it.
        precision: ``float32``, ``bf16``, ``fp16`` or ``int8``.
        error: why there are no figures; empty if there are.
        seconds: that making the file took.
        size_bytes: of the file.
        parity: with the Keras model.
        top1: accuracy on all test images, 0 to 1.
        times_ns: every timed run.
    """

    name: str
    engine: str
    precision: str
    error: str = ""
    seconds: float = 0.0
    size_bytes: int | None = None
    parity: Parity | None = None
    top1: float | None = None
    times_ns: tuple[int, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether cct-export made the file that the engine runs."""
        return self.name.startswith("cct-export ")

    @property
    def median_ms(self) -> float:
        """Median latency."""
        return statistics.median(self.times_ns) / 1e6

    @property
    def minimum_ms(self) -> float:
        """Lowest latency."""
        return min(self.times_ns) / 1e6


@dataclass(frozen=True)
class PeerResults:
    """Everything that one run of ``peers.py`` measured of one model.

    Attributes:
        command: the run.
        model: its name.
        data: name of the images.
        machine: where it ran.
        versions: of the engines and converters.
        parity_images: test images that parity is of.
        accuracy_images: test images that top-1 is of.
        rows: stock files, peers, ours.
    """

    command: str
    model: str
    data: str
    machine: MachineInfo
    versions: dict[str, str]
    parity_images: int
    accuracy_images: int
    rows: tuple[PeerRow, ...]

    @property
    def measured(self) -> tuple[PeerRow, ...]:
        """The rows with figures."""
        return tuple(row for row in self.rows if not row.error)

    def row(self, name: str) -> PeerRow | None:
        """Returns the measured row of that name, None if there is none."""
        return next((row for row in self.measured if row.name == name), None)

    def ratio(self, row: PeerRow) -> float | None:
        """Returns a row's lowest latency over that of our TFLite file of the same kind."""
        ours = self.row(OURS[row.precision])
        return row.minimum_ms / ours.minimum_ms if ours and not row.error else None


def exists(folder: str | Path) -> bool:
    """Tells whether a folder below ``RESULTS`` has results."""
    return (RESULTS / folder / "results.json").is_file()


def read(folder: str | Path) -> PeerResults:
    """Returns the results in a folder, such as ``amd-epyc/peers/cct_7_3x1_32``."""
    return msgspec.json.decode((RESULTS / folder / "results.json").read_bytes(), type=PeerResults)
