"""One artifact that is being measured: the answers of its workers, until they are a result."""

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from cct_export.bench import warnings
from cct_export.bench.protocol import Burst, Opened, Processing
from cct_export.errors import CCTExportError, ConnectionLost
from cct_export.evaluation.golden import GoldenCheck
from cct_export.files import sha256
from cct_export.machine import worst
from cct_export.records import (
    Accuracy,
    BenchResult,
    Conditions,
    Contract,
    MachineInfo,
    MeasuredFile,
    OperatorProfile,
    ReportedLatency,
    RunConditions,
    Runtime,
    Sustained,
    weights,
)
from cct_export.specs import BenchJob, Timing

Value = TypeVar("Value")

BURST_S = 0.05
# After the last of these pauses a device behind a bad network is given up.
RECONNECT_AFTER_S = (1.0, 2.0, 4.0)


class Reconnections:
    """Repeats what a lost connection interrupted; a few times for each artifact.

    Attributes:
        count: how often the connection was lost.
    """

    def __init__(self) -> None:
        self.count = 0

    def retry(self, work: Callable[[], Value]) -> Value:
        """Returns what ``work`` returns, which is called again when the connection is lost.

        Raises:
            CCTExportError: what ``work`` raised; ``ConnectionLost`` if that went on.
        """
        while True:
            try:
                return work()
            except ConnectionLost as error:
                self.pause(error)

    def pause(self, error: ConnectionLost) -> None:
        """Waits before the next attempt; raises ``error`` after the last one."""
        if self.count == len(RECONNECT_AFTER_S):
            raise error
        time.sleep(RECONNECT_AFTER_S[self.count])
        self.count += 1


class Timings:
    """The timed runs of an artifact, in bursts and repeats, and the state of the machine.

    Args:
        timing: how often and how long.
    """

    def __init__(self, timing: Timing) -> None:
        self._repeats = timing.repeats
        self._min_runs = max(1, math.ceil(timing.min_runs / timing.repeats))
        self._min_s = timing.min_s / timing.repeats
        self._bursts: list[list[Burst]] = []
        self._conditions: list[Conditions] = []
        self._completed = 0
        self._runs = self._spent_ns = 0  # of this repeat

    @property
    def empty(self) -> bool:
        """Whether no repeat has begun."""
        return not self._bursts

    @property
    def complete(self) -> bool:
        """Whether all repeats came to an end; what fails after them does not undo them."""
        return self._completed == self._repeats

    @property
    def times_ns(self) -> tuple[int, ...]:
        """Every run of every repeat, in order."""
        return tuple(ns for bursts in self._bursts for burst in bursts for ns in burst.times_ns)

    @property
    def burst_sizes(self) -> tuple[tuple[int, ...], ...]:
        """The number of runs in each burst of each repeat; empty if there are no runs."""
        sizes = tuple(tuple(len(burst.times_ns) for burst in bursts) for bursts in self._bursts)
        return sizes if self.times_ns else ()

    @property
    def done(self) -> float:
        """The share of this repeat that is done, 0 to 1."""
        runs = min(1.0, self._runs / self._min_runs)
        return min(runs, self._spent_ns / 1e9 / self._min_s) if self._min_s else runs

    def begin_repeat(self, conditions: Conditions) -> None:
        """Begins a repeat in this state of the machine."""
        self._bursts.append([])
        self._runs = self._spent_ns = 0
        self._conditions.append(conditions)

    def add(self, burst: Burst) -> None:
        """Adds runs to the repeat."""
        self._bursts[-1].append(burst)
        self._runs += len(burst.times_ns)
        self._spent_ns += sum(burst.times_ns)

    def end_repeat(self, conditions: Conditions) -> None:
        """Ends the repeat in this state of the machine."""
        self._conditions.append(conditions)
        self._completed += 1

    def next_burst(self) -> tuple[int, float] | None:
        """Returns runs and seconds, at least, of the next burst; None if the repeat has enough."""
        spent_s = self._spent_ns / 1e9
        if spent_s < self._min_s:
            return 1, min(self._min_s - spent_s, BURST_S)
        missing = self._min_runs - self._runs
        if missing <= 0:
            return None
        fitting = int(BURST_S * self._runs / spent_s) if spent_s else 1
        return min(missing, max(1, fitting)), 0.0

    def conditions(self, reconnections: int) -> RunConditions:
        """Returns the state of the machine: before the first repeat, and at its worst after."""
        if not self._conditions:
            return RunConditions()
        before, after = self._conditions[0], self._conditions[1:]
        bursts = [burst for repeat in self._bursts for burst in repeat]
        yardsticks = [burst.yardstick_ms for burst in bursts if burst.yardstick_ms is not None]
        # A worker's last burst knows of all its bursts.
        last = [repeat[-1].other_cores for repeat in self._bursts[: self._completed]]
        return RunConditions(
            before=before,
            after=worst(after) if after else before,
            other_cores=max((cores for cores in last if cores is not None), default=None),
            yardstick_ms=statistics.median(yardsticks) if yardsticks else None,
            reconnections=reconnections,
        )


@dataclass
class Measurement:
    """What is known so far of one artifact on one engine; for other figures see ``BenchResult``.

    Attributes:
        job: artifact and engine.
        timing: how often and how long it is run.
        device: where.
        device_path: path of the artifact on the device.
        opened: the first answer to ``open``.
        notes: warnings that only this kind of device has.
        failure: why figures are missing.
    """

    job: BenchJob
    timing: Timing
    device: str
    device_path: str = ""
    opened: Opened | None = None
    golden: GoldenCheck = field(default_factory=GoldenCheck)
    processing: Processing = field(default_factory=Processing)
    reported_ms: ReportedLatency | None = None
    peak_rss_bytes: int | None = None
    accuracy: Accuracy | None = None
    operators: OperatorProfile | None = None
    sustained: Sustained | None = None
    notes: list[str] = field(default_factory=list)
    failure: CCTExportError | None = None
    reconnections: Reconnections = field(default_factory=Reconnections)
    timings: Timings = field(init=False)

    def __post_init__(self) -> None:
        self.timings = Timings(self.timing)

    @property
    def path(self) -> Path:
        """The artifact, as the user named it."""
        return self.job.path

    @property
    def contract(self) -> Contract:
        """What the file says about itself."""
        return Contract() if self.opened is None else self.opened.contract

    @property
    def usable(self) -> bool:
        """Whether there is any sense in going on: nothing failed, golden parity included."""
        parity = self.golden.parity
        return self.failure is None and (parity is None or parity.passed)

    def attempt(self, work: Callable[..., Value], *arguments: object) -> Value | None:
        """Returns ``work(*arguments)`` if nothing failed before.

        An error is kept as the ``failure``, so that other artifacts are measured all the same.
        """
        if not self.usable:
            return None
        try:
            return work(*arguments)
        except CCTExportError as error:
            message = str(error)
            if self.device_path:
                message = message.replace(self.device_path, str(self.path))
            self.failure = type(error)(message)
            return None

    def result(self, machine: MachineInfo) -> BenchResult:
        """Returns the result, with its warnings.

        Args:
            machine: facts about where it was measured, see ``machine.describe``.
        """
        opened, parity, complete = self.opened, self.golden.parity, self.timings.complete
        result = BenchResult(
            artifact=self._file(),
            runtime=Runtime.of(self.job.spec) if opened is None else opened.runtime,
            batch=self.job.spec.batch,
            times_ns=self.timings.times_ns if complete else (),
            reported_ms=self.reported_ms if complete else None,
            bursts=self.timings.burst_sizes if complete else (),
            load_ms=None if opened is None else opened.load_ms,
            first_inference_ms=None if opened is None else opened.first_inference_ms,
            peak_rss_bytes=self.peak_rss_bytes,
            preprocess_ms=self.processing.preprocess_ms,
            postprocess_ms=self.processing.postprocess_ms,
            headline=self.timing.headline,
            accuracy=self.accuracy,
            parity=None if parity is None else replace(parity, candidate=str(self.path)),
            operators=self.operators,
            sustained=self.sustained,
            conditions=self.timings.conditions(self.reconnections.count),
            device=self.device,
            machine=machine,
            failure=str(self.failure or ""),
            failure_kind=type(self.failure).__name__ if self.failure else "",
        )
        unknown = self.golden.unknown and warnings.parity_unknown(result, self.golden.unknown)
        notes = (unknown, *self.notes, *warnings.of(result, self.timing))
        return replace(result, warnings=tuple(filter(None, notes)))

    def _file(self) -> MeasuredFile:
        is_file, keras = self.path.is_file(), self.job.spec.runtime == "keras"
        return MeasuredFile(
            path=os.fspath(self.path),
            format=self.contract.format or self.job.spec.runtime,
            scheme=self.contract.scheme or ("none" if keras else "unknown"),
            size_bytes=weights.size_of(self.path) if is_file else None,
            sha256=sha256(self.path) if is_file else None,
            described=bool(self.contract),
            changed=self.golden.changed,
        )
