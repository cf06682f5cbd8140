"""What is known so far of one artifact that is being measured."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from cct_export.bench import warnings
from cct_export.bench.answers import Burst, Opened, Processing
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
    ParityReport,
    ReportedLatency,
    RunConditions,
    Runtime,
    Sustained,
)
from cct_export.specs import BenchSpec, Timing

Done = TypeVar("Done")

# A device over a bad network is given up after the last of these pauses.
RECONNECT_AFTER_S = (1.0, 2.0, 4.0)


class Tally:
    """Answers of workers, collected until they are a ``BenchResult``.

    Args:
        path: the artifact.
        spec: on what it is measured.
        timing: how often and how long.
        device: where.

    Attributes:
        there: path of the artifact on the device.
        reported_ms: what a tool tells that keeps no raw times, see ``BenchResult``.
    """

    def __init__(self, path: Path, spec: BenchSpec, timing: Timing, device: str) -> None:
        self.path, self.spec, self._plan, self._device = path, spec, timing, device
        self.there = str(path)
        self.accuracy: Accuracy | None = None
        self.operators: OperatorProfile | None = None
        self.sustained: Sustained | None = None
        self.reported_ms: ReportedLatency | None = None
        self.contract = Contract()
        self.peak_rss_bytes: int | None = None
        self.timing = False
        self._failure: CCTExportError | None = None
        self._parity: ParityReport | None = None
        self._changed = False
        self._first: Opened | None = None
        self._times: list[int] = []
        self._bursts: list[list[int]] = []
        self._processing = Processing()
        self._other_cores: list[float] = []
        self._yardsticks: list[float] = []
        self._last_other_cores: float | None = None
        self._repeats = self._lost = 0
        self._conditions: list[Conditions] = []

    @property
    def asked(self) -> dict[str, Any]:
        """The spec as plain JSON types."""
        return asdict(self.spec)

    @property
    def alive(self) -> bool:
        """Whether there is any sense in going on."""
        return self._failure is None and (self._parity is None or self._parity.passed)

    @property
    def first_repeat(self) -> bool:
        """Whether nothing was timed yet."""
        return not self._bursts

    def fail(self, error: CCTExportError) -> None:
        """Keeps why there are no figures."""
        told = str(error).replace(self.there, str(self.path))
        self._failure, self.timing = type(error)(told), False

    def placed(self, place: Callable[[Path], str]) -> None:
        """Has ``place`` bring the artifact to the device."""
        self.there = self.persist(lambda: place(self.path))

    def persist(self, work: Callable[[], Done]) -> Done:
        """Returns what ``work`` returns, done again where the connection to the device broke.

        Raises:
            CCTExportError: what ``work`` raised; ``ConnectionLost`` if that went on.
        """
        while True:
            try:
                return work()
            except ConnectionLost as error:
                self.lost(error)

    def lost(self, error: ConnectionLost) -> None:
        """Counts a connection that broke, and waits before the next; raises after too many."""
        if self._lost == len(RECONNECT_AFTER_S):
            raise error
        time.sleep(RECONNECT_AFTER_S[self._lost])
        self._lost += 1

    def opened(self, answer: Opened) -> None:
        """Takes the answer to ``open``; the load time is that of the first repeat."""
        if self._first is None:
            self._first, self.contract = answer, answer.contract

    def golden(self, answer: GoldenCheck) -> None:
        """Takes the answer to ``golden``."""
        self._changed = answer.changed
        if answer.parity is not None:
            self._parity = replace(answer.parity, candidate=str(self.path))

    def processing(self, answer: Processing) -> None:
        """Takes the answer to ``processing``."""
        self._processing = answer

    def begin(self, conditions: Conditions) -> None:
        """Begins a repeat."""
        self._bursts.append([])
        self._conditions.append(conditions)
        self.timing = True

    def add(self, answer: Burst) -> None:
        """Takes the answer to ``burst``."""
        self._times += answer.times_ns
        self._bursts[-1].append(len(answer.times_ns))
        self._last_other_cores = answer.other_cores
        if answer.yardstick_ms is not None:
            self._yardsticks.append(answer.yardstick_ms)

    def missing(self, runs: int, seconds: float) -> tuple[int, float]:
        """Returns how many runs and seconds this repeat has too few; neither below 0."""
        count, spent = self._repeat_so_far()
        return max(0, runs - count), max(0.0, seconds - spent)

    def fitting(self, seconds: float) -> int:
        """Returns how many runs fit into ``seconds``: one at least, as far as is known."""
        count, spent = self._repeat_so_far()
        return max(1, int(seconds * count / spent)) if spent else 1

    def _repeat_so_far(self) -> tuple[int, float]:
        count = sum(self._bursts[-1])
        return count, sum(self._times[len(self._times) - count :]) / 1e9

    def end(self, conditions: Conditions) -> None:
        """Ends a repeat."""
        self._conditions.append(conditions)
        self._repeats += 1
        if self._last_other_cores is not None:
            self._other_cores.append(self._last_other_cores)
        self.timing = False

    @property
    def _timed(self) -> bool:
        """Whether all repeats came to an end; what failed after them does not undo them."""
        return self._repeats == self._plan.repeats

    def result(self, machine: MachineInfo) -> BenchResult:
        """Returns what was found.

        Args:
            machine: facts about where it was measured, see ``machine.describe``.
        """
        first = self._first
        failed = self._failure
        times = self._times if self._timed else []
        bursts = self._bursts if times else []
        found = BenchResult(
            artifact=self._artifact(),
            runtime=Runtime.of(self.spec) if first is None else first.runtime,
            batch=self.spec.batch,
            times_ns=tuple(times),
            reported_ms=self.reported_ms if self._timed else None,
            bursts=tuple(tuple(sizes) for sizes in bursts),
            load_ms=None if first is None else first.load_ms,
            first_inference_ms=None if first is None else first.first_inference_ms,
            peak_rss_bytes=self.peak_rss_bytes,
            preprocess_ms=self._processing.preprocess_ms,
            postprocess_ms=self._processing.postprocess_ms,
            headline=self._plan.headline,
            accuracy=self.accuracy,
            parity=self._parity,
            operators=self.operators,
            sustained=self.sustained,
            conditions=self._meanwhile(),
            device=self._device,
            machine=machine,
            failure=str(failed) if failed else "",
            failure_kind=type(failed).__name__ if failed else "",
        )
        return warnings.advised(found, self._plan)

    def _artifact(self) -> MeasuredFile:
        is_file, keras = self.path.is_file(), self.spec.runtime == "keras"
        return MeasuredFile(
            path=os.fspath(self.path),
            format=self.contract.format or self.spec.runtime,
            scheme=self.contract.scheme or ("none" if keras else "unknown"),
            size_bytes=self.path.stat().st_size if is_file else None,
            sha256=sha256(self.path) if is_file else None,
            described=bool(self.contract),
            changed=self._changed,
        )

    def _meanwhile(self) -> RunConditions:
        """Returns the state of the machine: before the first repeat, and at its worst after."""
        if not self._conditions:
            return RunConditions()
        before, after = self._conditions[0], self._conditions[1:]
        return RunConditions(
            before=before,
            after=worst(after) if after else before,
            other_cores=max(self._other_cores, default=None),
            yardstick_ms=statistics.median(self._yardsticks) if self._yardsticks else None,
            reconnections=self._lost,
        )
