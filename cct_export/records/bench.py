"""Measurements of one artifact on one engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

from msgspec import Meta

from cct_export.errors import kind_of
from cct_export.records.encoding import from_json, to_json
from cct_export.records.machine import (
    Count,
    Figure,
    MachineInfo,
    Milliseconds,
    Reading,
    RunConditions,
    Share,
)
from cct_export.records.parity import ParityReport
from cct_export.specs import BenchSpec, JSONObject

Nanoseconds = Annotated[int, Meta(ge=1, le=10**15)]
# Repeats by bursts of the longest: what the statistics resample, an hour's and more.
_MOST_BURSTS = 200_000


@dataclass(frozen=True)
class PairedAccuracy:
    """An artifact and its Keras model on the same labelled images.

    Attributes:
        reference_top1: accuracy of the model, 0 to 1.
        only_reference: images that only the model classifies correctly.
        only_candidate: images that only the artifact classifies correctly.
        p_value: of so uneven a split if both were equally accurate (McNemar's exact test).
    """

    reference_top1: Share
    only_reference: Count
    only_candidate: Count
    p_value: Share


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of an artifact on labelled test images.

    Attributes:
        top1: share of images whose label is the best class, 0 to 1.
        top5: share whose label is among the five best; None where there are no more classes.
        samples: number of images.
        data: where they are from.
        top1_interval: Wilson interval of ``top1`` at 95 %.
        top5_interval: the same of ``top5``.
        calibration_error: expected calibration error over 15 bins, 0 to 1 (arXiv:1706.04599).
        confusion: number of images by label (rows) and prediction (columns).
        labels: class names of rows and columns, empty if not known.
        paired: compared with the Keras model; None if the model is not available.
    """

    top1: Share
    top5: Share | None
    samples: Count
    data: str
    top1_interval: tuple[Share, Share] = (0.0, 1.0)
    top5_interval: tuple[Share, Share] | None = (0.0, 1.0)
    calibration_error: Share = 0.0
    confusion: tuple[tuple[Count, ...], ...] = ()
    labels: tuple[str, ...] = ()
    paired: PairedAccuracy | None = None

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Top-1 accuracy of the images of each class, None for a class without images."""
        return tuple(
            row[index] / sum(row) if sum(row) else None for index, row in enumerate(self.confusion)
        )

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types, with ``per_class``."""
        fields: JSONObject = to_json(self)
        return fields | {"per_class": list(self.per_class)}


@dataclass(frozen=True)
class OperatorTime:
    """The time of one operator.

    Attributes:
        name: of the operator, or of its output.
        kind: the format's name for it.
        ms: median over the runs.
        where: what ran it: a delegate, or the engine itself.
        noise_ms: half of the 95 % interval of ``ms`` where that is a difference of two medians; 0
            where it is not.
    """

    name: str
    kind: str
    ms: Reading
    where: str
    noise_ms: Figure = 0.0

    @property
    def within_noise(self) -> bool:
        """Whether a derived time cannot be told from zero."""
        return self.ms < self.noise_ms


@dataclass(frozen=True)
class OperatorProfile:
    """The operators of an artifact and their times.

    Attributes:
        operators: in the order in which they run.
        runs: how often they were timed.
        derived: whether the times are differences of prefixes of the graph, not the engine's own.
        note: what to know before relying on the figures.
    """

    operators: tuple[OperatorTime, ...]
    runs: Count
    derived: bool
    note: str = ""


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

    interval_s: Annotated[float, Meta(ge=1e-3, le=10**9)]
    p50_ms: Annotated[tuple[Milliseconds, ...], Meta(min_length=1)]
    p90_ms: tuple[Milliseconds, ...]
    runs: tuple[Count, ...]
    temperature_c: tuple[Reading | None, ...] = ()
    frequency_mhz: tuple[Figure | None, ...] = ()


@dataclass(frozen=True)
class MeasuredFile:
    """The file, or model, that was measured.

    Attributes:
        path: as the user wrote it.
        format: ``tflite``, ``onnx`` or ``keras``.
        scheme: quantization scheme; ``unknown`` for a file that does not say.
        size_bytes: size of the file; None of a model that is no single file.
        sha256: checksum of the file; None as well.
        described: whether the file says what it expects as input.
        changed: whether it has changed since it was exported.
    """

    path: str
    format: str
    scheme: str
    size_bytes: Count | None = None
    sha256: str | None = None
    described: bool = True
    changed: bool = False


@dataclass(frozen=True)
class Runtime:
    """The engine that ran an artifact.

    Attributes:
        name: of the engine.
        version: of the engine; empty if not known.
        accelerator: the kind of processor, such as ``cpu`` or ``gpu``; empty if not known.
        delegate: what the engine really handed its work to.
        requested: the delegate that was requested, as ``Delegation`` names it.
        options: of the delegate.
        allow_fallback: whether operators that the delegate does not take were allowed elsewhere.
        threads: that the engine may use.
        delegated_nodes: operators that the delegate ran; None if not known.
        total_nodes: operators in all; None if not known.
    """

    name: str
    version: str
    accelerator: str
    delegate: str
    requested: str
    threads: Count
    options: dict[str, str]
    allow_fallback: bool = False
    delegated_nodes: Count | None = None
    total_nodes: Count | None = None

    @classmethod
    def of(
        cls,
        spec: BenchSpec,
        *,
        version: str = "",
        accelerator: str = "",
        delegate: str | None = None,
        nodes: tuple[int | None, int | None] = (None, None),
    ) -> "Runtime":
        """Returns what ran ``spec``.

        Args:
            spec: what was requested.
            version: of the engine.
            accelerator: the kind of processor.
            delegate: what the engine really handed its work to; None for what was requested.
            nodes: delegated and total operators.
        """
        delegation = spec.delegation
        return cls(
            name=spec.runtime,
            version=version,
            accelerator=accelerator,
            delegate=delegation.name if delegate is None else delegate,
            requested=delegation.name,
            options=dict(delegation.options),
            allow_fallback=delegation.allow_fallback,
            threads=spec.threads,
            delegated_nodes=nodes[0],
            total_nodes=nodes[1],
        )


@dataclass(frozen=True)
class ReportedLatency:
    """Statistics, in milliseconds, of a tool that does not tell each run.

    Attributes:
        count: number of runs.
        p50: median.
        mean: of all runs; None where the tool does not tell it, as everything below.
        min: fastest run.
        max: slowest run.
        p95: 95th percentile.
        stddev: standard deviation.
    """

    count: Nanoseconds
    p50: Milliseconds
    mean: Figure | None = None
    min: Figure | None = None
    max: Figure | None = None
    p95: Figure | None = None
    stddev: Figure | None = None


@dataclass(frozen=True)
class BenchResult:
    """What one artifact did on one engine.

    Attributes:
        artifact: the file.
        runtime: the engine.
        batch: images per run.
        times_ns: every timed run, in nanoseconds, in order.
        bursts: how many of them belong together: for every repeat, the number of runs in each
            burst without a pause.
        load_ms: opening the session.
        first_inference_ms: the first run after that.
        peak_rss_bytes: largest resident memory of a process that did nothing else, None where
            the OS does not tell.
        preprocess_ms: median time to make the engine's input of uint8 pixels.
        postprocess_ms: median time to make five classes with probabilities of its output.
        headline: the percentile of the runs that stands for the latency.
        reported_ms: statistics of a tool that does not tell each run; None where there are raw
            times, or no latency.
        accuracy: on labelled images, if requested.
        parity: against the golden logits in the sidecar, if there is one.
        operators: time of each operator, if requested.
        sustained: latency over a long time, if requested.
        conditions: state of the machine meanwhile.
        device: where it ran.
        machine: facts about that machine.
        warnings: what to know before relying on the figures, and what to do about it.
        failure: why there are no figures, empty if there are.
        failure_kind: name of the error in ``errors``, empty if there are figures.
    """

    artifact: MeasuredFile
    runtime: Runtime
    batch: Annotated[int, Meta(ge=1, le=10**9)]
    times_ns: tuple[Nanoseconds, ...] = ()
    bursts: tuple[tuple[Nanoseconds, ...], ...] = ()
    load_ms: Figure | None = None
    first_inference_ms: Figure | None = None
    peak_rss_bytes: Count | None = None
    preprocess_ms: Figure | None = None
    postprocess_ms: Figure | None = None
    headline: Annotated[int, Meta(ge=1, le=99)] = 50
    reported_ms: ReportedLatency | None = None
    accuracy: Accuracy | None = None
    parity: ParityReport | None = None
    operators: OperatorProfile | None = None
    sustained: Sustained | None = None
    conditions: RunConditions = field(default_factory=RunConditions)
    device: str = "local"
    machine: MachineInfo = field(default_factory=MachineInfo)
    warnings: tuple[str, ...] = ()
    failure: str = ""
    failure_kind: str = ""

    def _contradictions(self) -> Iterator[str]:
        sizes = [size for bursts in self.bursts for size in bursts]
        if sizes and sum(sizes) != len(self.times_ns):
            yield f"bursts are of {sum(sizes)} runs, times_ns of {len(self.times_ns)}"
        if not all(self.bursts):
            yield "bursts has a repeat without runs"
        if self.reported_ms is not None and self.times_ns:
            yield "reported_ms and times_ns are both there"
        if self.reported_ms is not None and not getattr(self.reported_ms, f"p{self.headline}", 0):
            yield f"reported_ms has no p{self.headline}"
        if bool(self.failure) != bool(self.failure_kind):
            yield "failure and failure_kind are not both there"
        if self.failure_kind and kind_of(self.failure_kind) is None:
            yield f"failure_kind {self.failure_kind!r} is no error"
        yield from _uneven(self.sustained) if self.sustained is not None else ()
        yield from _inconsistent(self.accuracy) if self.accuracy is not None else ()
        delegated, total = self.runtime.delegated_nodes, self.runtime.total_nodes
        if delegated is not None and total is not None and delegated > total:
            yield f"runtime.delegated_nodes is {delegated} of {total}"
        if len(self.bursts) * max(map(len, self.bursts), default=0) > _MOST_BURSTS:
            yield f"bursts are more than {_MOST_BURSTS} in all repeats"
        failed_parity = self.parity is not None and not self.parity.passed
        if not (self.timed or self.failure or failed_parity):
            yield "times_ns is empty, and nothing says why"

    @property
    def timed(self) -> bool:
        """Whether there is a latency: raw times, or what a tool reported."""
        return bool(self.times_ns or self.reported_ms)

    @classmethod
    def from_dict(cls, fields: JSONObject) -> "BenchResult":
        """Returns the result of plain JSON types that anyone may have written.

        Raises:
            ValueError: a field is missing or of another type, or two contradict each other.
        """
        parity = fields.get("parity")
        result = from_json(fields | {"parity": None}, cls)
        if parity is not None:
            result = replace(result, parity=ParityReport.from_dict(parity))
        for contradiction in result._contradictions():
            raise ValueError(contradiction)
        return result


def _inconsistent(accuracy: Accuracy) -> Iterator[str]:
    """Yields what says that figures of ``accuracy`` are not of the same images."""
    rows = accuracy.confusion
    if any(len(row) != len(rows) for row in rows):
        yield "accuracy.confusion is not square"
    if sum(map(sum, rows)) > accuracy.samples:
        yield f"accuracy.confusion is of more than {accuracy.samples} images"
    if rows and len(accuracy.labels) not in (0, len(rows)):
        yield f"accuracy.labels are {len(accuracy.labels)}, confusion is of {len(rows)} classes"
    if accuracy.top5 is not None and accuracy.top5 < accuracy.top1:
        yield "accuracy.top5 is below top1"
    for name in ("top1", "top5"):
        share, interval = getattr(accuracy, name), getattr(accuracy, f"{name}_interval")
        if share is not None and not (interval and interval[0] <= share <= interval[1]):
            yield f"accuracy.{name} is outside of its interval"


def _uneven(sustained: Sustained) -> Iterator[str]:
    """Yields what says that lists of ``sustained`` are not of the same intervals."""
    intervals = len(sustained.p50_ms)
    for name in ("p90_ms", "runs"):
        if len(getattr(sustained, name)) != intervals:
            yield f"sustained.{name} is not of {intervals} intervals"
    for name in ("temperature_c", "frequency_mhz"):
        if len(getattr(sustained, name)) not in (0, intervals):
            yield f"sustained.{name} is not of {intervals} intervals"
