"""An Android phone as a device to measure on."""

import atexit
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cct_export.bench.answers import Burst, Opened
from cct_export.bench.hosts.adb import benchmark_model, facts, perf_test, with_litert
from cct_export.bench.hosts.adb.client import Client
from cct_export.bench.hosts.adb.report import Report
from cct_export.bench.hosts.adb.tool import Tool, runtime
from cct_export.bench.hosts.adb.with_litert import WithLiteRT
from cct_export.bench.hosts.adb.with_onnxruntime import WithOnnxRuntime
from cct_export.bench.hosts.adb.workplace import Workplace
from cct_export.bench.hosts.host import Say
from cct_export.bench.measurement import Tally
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.files import sha256
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchPasses, BenchSpec, Timing

NAMES = {"litert": benchmark_model.NAME, "onnxruntime": perf_test.NAME}
_TOOLS: dict[str, Callable[[Workplace, Path, Path, BenchSpec], Tool]] = {
    "litert": WithLiteRT,
    "onnxruntime": WithOnnxRuntime,
}


class Phone:
    """A phone that ``adb`` reaches. See ``Device``.

    Args:
        serial: its serial number, empty for the only one that is connected.
    """

    def __init__(self, serial: str) -> None:
        self.name = f"adb:{serial}" if serial else "adb"
        self._serial = serial
        self._workplace: Workplace | None = None

    def measure(
        self, jobs: Sequence[BenchJob], timing: Timing, passes: BenchPasses, say: Say
    ) -> list[BenchResult]:
        """Measures jobs; see ``Device``."""
        binary = _checked(jobs, timing, passes)
        client = Client(self._serial)
        workplace = self._workplace = Workplace(client)
        atexit.register(self.close)  # an interrupted program does not wait for other threads
        try:
            workplace.open()
            tool = NAMES[jobs[0].spec.runtime]
            machine = facts.describe(client, tool, sha256(binary))
            device = f"adb:{client.serial}"
            rows = [_Row(job, timing, device, workplace, binary) for job in jobs]
            _measure(rows, timing, say)
            return [row.result(machine) for row in rows]
        finally:
            self.close()
            atexit.unregister(self.close)

    def close(self) -> None:
        """Removes what was copied to the phone, and ends what runs there."""
        workplace, self._workplace = self._workplace, None
        if workplace is not None:
            workplace.close()


def _checked(jobs: Sequence[BenchJob], timing: Timing, passes: BenchPasses) -> Path:
    """Returns the program that measures; raises ``InvalidRequest`` for what it cannot do."""
    asked = {
        "--accuracy": passes.accuracy_data is not None,
        "--profile-ops": bool(passes.operators),
        "--sustained": bool(passes.sustained_s),
    }
    for option, wanted in asked.items():
        if wanted:
            raise InvalidRequest(f"{option} is not for --device adb: the tools there only time")
    for job in jobs:
        if job.spec.runtime not in NAMES:
            raise InvalidRequest(f"--device adb runs tflite and onnx, not {job.spec.runtime}")
    if len({job.spec.runtime for job in jobs}) > 1:
        raise InvalidRequest(
            "--device adb measures one format at a time, each with a program of its own: save a "
            "record of each with --json, and compare those"
        )
    litert = any(job.spec.runtime == "litert" for job in jobs)
    if litert and timing.headline not in with_litert.HEADLINES:
        raise InvalidRequest(
            f"{benchmark_model.NAME} tells the 50th and 95th percentile, not the "
            f"{timing.headline}th of --profile strict: leave that out, --min-seconds 60 is as long"
        )
    name = NAMES[jobs[0].spec.runtime]
    if passes.benchmark_binary is None:
        raise InvalidRequest(
            f"--device adb measures with {name}: name that with --benchmark-binary "
            "(docs/android-bench.md says where it is)"
        )
    if not passes.benchmark_binary.is_file():
        raise InvalidRequest(f"no such program: --benchmark-binary {passes.benchmark_binary}")
    return passes.benchmark_binary


class _Row:
    """One job on the phone."""

    def __init__(
        self, job: BenchJob, timing: Timing, device: str, workplace: Workplace, binary: Path
    ) -> None:
        self.tally = Tally(job.path, job.spec, timing, device)
        self._job, self._workplace, self._binary = job, workplace, binary
        self._tool: Tool
        self._reports: list[Report] = []
        self._notes: list[str] = []

    @contextlib.contextmanager
    def failure_kept(self) -> Iterator[None]:
        """Keeps an error, and lets the other rows go on."""
        try:
            yield
        except CCTExportError as error:
            self.tally.fail(error)

    def prepare(self) -> None:
        """Runs it once, and judges what it computes."""
        job = self._job
        tool = self._tool = _TOOLS[job.spec.runtime](
            self._workplace, self._binary, job.path, job.spec
        )
        report = tool.first()
        self.tally.opened(
            Opened(
                runtime=runtime(tool, job.spec, report),
                contract=tool.contract,
                load_ms=report.load_ms,
                first_inference_ms=report.first_inference_ms,
            )
        )
        self.tally.golden(tool.golden())
        if tool.unproven:
            self._notes.append(
                f"parity is unknown on this device: {tool.unproven}; `cct-bench` on this machine "
                "compares the file with its model"
            )

    def time(self, runs: int, seconds: float, warmup_s: float) -> None:
        """Times one repeat."""
        self.tally.begin(facts.conditions(self._workplace.client))
        report = self._tool.timed(runs, seconds, warmup_s)
        self._reports.append(report)
        self.tally.add(Burst(report.times_ns))
        self.tally.end(facts.conditions(self._workplace.client))

    def finish(self, agreement: float) -> None:
        """Takes the memory, and the middle one of several statistics."""
        told = [report.reported_ms for report in self._reports if report.reported_ms]
        if told:
            told.sort(key=lambda one: one.p50)
            self.tally.reported_ms = told[(len(told) - 1) // 2]
            self._notes += _apart([one.p50 for one in told], agreement)
        self.tally.peak_rss_bytes = self._tool.memory()

    def result(self, machine: MachineInfo) -> BenchResult:
        """Returns what was found."""
        found = self.tally.result(machine)
        return dataclasses.replace(found, warnings=(*self._notes, *found.warnings))


def _apart(medians: list[float], agreement: float) -> Iterator[str]:
    """Says that repeats, in order of their medians, do not agree."""
    if medians[-1] - medians[0] > agreement * medians[0]:
        said = ", ".join(f"{median:.3f}" for median in medians)
        yield (
            f"the repeats do not agree within {agreement:.0%}: p50 is {said} ms, the middle one is "
            "reported; let the phone cool and rest, measure again"
        )


def _measure(rows: Sequence[_Row], timing: Timing, say: Say) -> None:
    for row in rows:
        say(f"{row.tally.path}: once, on the phone")
        with row.failure_kept():
            row.prepare()
    runs = math.ceil(timing.min_runs / timing.repeats)
    seconds = timing.min_s / timing.repeats
    for repeat in range(timing.repeats):
        of = f", repeat {repeat + 1} of {timing.repeats}" if timing.repeats > 1 else ""
        for row in rows:
            if row.tally.alive:
                say(f"timing {row.tally.path} on the phone{of}")
                with row.failure_kept():
                    row.time(runs, seconds, timing.warmup_s)
    for row in rows:
        if row.tally.alive:
            with row.failure_kept():
                row.finish(timing.agreement)
