"""The answers of a worker process, as typed records."""

from dataclasses import dataclass, field

from cct_export.records import Accuracy, Contract, Runtime


@dataclass(frozen=True)
class Opened:
    """An artifact on an engine, after its first run.

    Attributes:
        runtime: the engine.
        contract: what the file says about itself.
        load_ms: time to open the session; None if not known.
        first_inference_ms: time of the first run; None if not known.
        image_shape: height, width, channels.
    """

    runtime: Runtime
    contract: Contract = field(default_factory=Contract)
    load_ms: float | None = None
    first_inference_ms: float | None = None
    image_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Burst:
    """Timed runs without a pause.

    Attributes:
        times_ns: nanoseconds of each run, in order.
        other_cores: how many cores other programs kept busy; None if not known.
        yardstick_ms: how long a fixed piece of work took; None if not measured.
    """

    times_ns: tuple[int, ...]
    other_cores: float | None = None
    yardstick_ms: float | None = None


@dataclass(frozen=True)
class Processing:
    """Median times of the work around a run.

    Attributes:
        preprocess_ms: from uint8 pixels of the right size to the engine's input.
        postprocess_ms: from its output to five classes with probabilities.
    """

    preprocess_ms: float | None = None
    postprocess_ms: float | None = None


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of a process that only ran the artifact; None where the OS does not tell."""

    peak_rss_bytes: int | None


@dataclass(frozen=True)
class Scored:
    """Accuracy on labelled images, and which of them were classified correctly."""

    accuracy: Accuracy
    right: tuple[bool, ...]
