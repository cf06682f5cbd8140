"""What one artifact did on one engine."""

from dataclasses import dataclass, field
from typing import Any

from cct_export.records.encoding import record_of
from cct_export.records.parity import ParityReport


@dataclass(frozen=True)
class Accuracy:
    """How right an artifact is on labelled test images.

    Attributes:
        top1: share of images whose label is the best class, 0 to 1.
        top5: share whose label is among the five best.
        samples: number of images.
        data: where they are from.
        top1_interval: Wilson interval of ``top1`` at 95 %.
        top5_interval: the same of ``top5``.
        calibration_error: expected calibration error over 15 bins, 0 to 1 (arXiv:1706.04599).
        confusion: number of images by label (rows) and prediction (columns).
        labels: class names of rows and columns, empty if not known.
        paired: against the Keras model on the same images: ``only_reference`` and
            ``only_candidate`` (images that only one of the two gets right), ``reference_top1``
            and ``p_value`` (McNemar's exact test); None if the model is not at hand.
    """

    top1: float
    top5: float
    samples: int
    data: str
    top1_interval: tuple[float, float] = (0.0, 1.0)
    top5_interval: tuple[float, float] = (0.0, 1.0)
    calibration_error: float = 0.0
    confusion: tuple[tuple[int, ...], ...] = ()
    labels: tuple[str, ...] = ()
    paired: dict[str, Any] | None = None

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Accuracy":
        """Returns the record that ``dataclasses.asdict`` made ``found`` of."""
        return record_of(cls, found)

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Top-1 accuracy of the images of each class, None for a class without images."""
        return tuple(
            row[index] / sum(row) if sum(row) else None for index, row in enumerate(self.confusion)
        )


@dataclass(frozen=True)
class OperatorTime:
    """How long one operator takes.

    Attributes:
        name: of the operator, or of its output.
        kind: the format's word for it.
        ms: median over the runs.
        where: what ran it: a delegate, or the engine itself.
    """

    name: str
    kind: str
    ms: float
    where: str


@dataclass(frozen=True)
class OperatorProfile:
    """The operators of an artifact and their times.

    Attributes:
        operators: in the order in which they run.
        runs: how often they were timed.
        derived: whether the times are differences of prefixes of the graph, not the engine's own.
        note: what to know before believing the figures.
    """

    operators: tuple[OperatorTime, ...]
    runs: int
    derived: bool
    note: str = ""

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "OperatorProfile":
        """Returns the record that ``dataclasses.asdict`` made ``found`` of."""
        operators = tuple(OperatorTime(**operator) for operator in found["operators"])
        return record_of(cls, found | {"operators": operators})


@dataclass(frozen=True)
class Sustained:
    """Latency over a long time without a pause.

    Attributes:
        interval_s: seconds of each point.
        p50_ms: median of each interval.
        p90_ms: 90th percentile of each interval.
        runs: runs in each interval.
        temperature_c: highest temperature at the end of each interval, None where not shown.
        frequency_mhz: of the fastest core at the end of each interval, None where not shown.
    """

    interval_s: float
    p50_ms: tuple[float, ...]
    p90_ms: tuple[float, ...]
    runs: tuple[int, ...]
    temperature_c: tuple[float | None, ...] = ()
    frequency_mhz: tuple[float | None, ...] = ()

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Sustained":
        """Returns the record that ``dataclasses.asdict`` made ``found`` of."""
        return record_of(cls, found)


@dataclass(frozen=True)
class BenchResult:
    """What one artifact did on one engine.

    Attributes:
        artifact: path, format, scheme, size and checksum of the file.
        runtime: engine, version, accelerator, delegate, threads, delegated and total nodes.
        batch: images per run.
        times_ns: every timed run, in nanoseconds, in order.
        bursts: how many of them belong together: for every repeat, the number of runs in each
            burst without a pause.
        load_ms: making the session.
        first_inference_ms: the first run after that.
        peak_rss_bytes: largest resident memory of a process that did nothing else, None where
            the OS does not tell.
        preprocess_ms: median time to make the engine's input of uint8 pixels.
        postprocess_ms: median time to make five classes with probabilities of its output.
        headline: the percentile of the runs that stands for the latency.
        reported_ms: what a tool told that keeps no raw times, in milliseconds: ``count`` (runs),
            ``mean``, ``min``, ``max``, ``p50``, ``p95``, ``stddev``; None for what it did not tell.
            None where there are raw times, or no latency.
        accuracy: on labelled images, if asked for.
        parity: against the golden logits in the sidecar, if there is one.
        operators: time of each operator, if asked for.
        sustained: latency over a long time, if asked for.
        conditions: ``before`` and ``after`` the timed runs, see ``machine.conditions``, and
            ``other_cores``, how many cores other programs kept busy meanwhile, and
            ``yardstick_ms``, how long a fixed piece of work took: the speed of the machine.
        device: where it ran.
        machine: facts about that machine, see ``machine.describe``.
        warnings: what to know before believing the figures, and what to do about it.
        failure: why there are no figures, empty if there are.
        failure_kind: name of the error in ``errors``, empty if there are figures.
    """

    artifact: dict[str, Any]
    runtime: dict[str, Any]
    batch: int
    times_ns: tuple[int, ...] = ()
    bursts: tuple[tuple[int, ...], ...] = ()
    load_ms: float | None = None
    first_inference_ms: float | None = None
    peak_rss_bytes: int | None = None
    preprocess_ms: float | None = None
    postprocess_ms: float | None = None
    headline: int = 50
    reported_ms: dict[str, float | None] | None = None
    accuracy: Accuracy | None = None
    parity: ParityReport | None = None
    operators: OperatorProfile | None = None
    sustained: Sustained | None = None
    conditions: dict[str, Any] = field(default_factory=dict)
    device: str = "local"
    machine: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: str = ""
    failure_kind: str = ""

    @property
    def timed(self) -> bool:
        """Whether there is a latency: raw times, or what a tool reported."""
        return bool(self.times_ns or self.reported_ms)
