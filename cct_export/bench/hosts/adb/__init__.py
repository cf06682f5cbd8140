"""An Android phone, through the program ``adb``; LiteRT's or ONNX Runtime's own tool measures."""

import atexit
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from cct_export.bench.hosts.adb import facts, litert_tool, onnxruntime_tool
from cct_export.bench.hosts.adb.client import Client, RemoteFolder
from cct_export.bench.hosts.adb.litert_tool import LiteRTTool
from cct_export.bench.hosts.adb.onnxruntime_tool import OnnxRuntimeTool
from cct_export.bench.hosts.adb.tool import Report, Tool
from cct_export.bench.measurement import Measurement
from cct_export.bench.protocol import Burst, Opened
from cct_export.bounds import exceeds
from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.files import check_file, sha256
from cct_export.names import choose, find
from cct_export.records import BenchResult, Runtime
from cct_export.runtimes import ENGINES
from cct_export.specs import BenchJob, BenchPlan, BenchSpec, Timing
from cct_export.specs.progress import StatusProgress

TOOL_NAMES = {"litert": litert_tool.NAME, "onnxruntime": onnxruntime_tool.NAME}
_DELEGATES: dict[str, Collection[str]] = {
    "litert": litert_tool.DELEGATES,
    "onnxruntime": onnxruntime_tool.DELEGATES,
}
_TOOLS: dict[str, Callable[[RemoteFolder, Path, Path, BenchSpec], Tool]] = {
    "litert": LiteRTTool,
    "onnxruntime": OnnxRuntimeTool,
}


class Phone:
    """A phone that ``adb`` reaches. See ``Device``.

    Args:
        serial: its serial number, empty for the only one that is connected.
    """

    def __init__(self, serial: str = "") -> None:
        self.name = f"adb:{serial}" if serial else "adb"
        self._serial = serial
        self._folder: RemoteFolder | None = None

    def choose_delegate(self, runtime: str, name: str) -> str:
        """Returns a delegate as the tool for the engine names it; see ``Device``."""
        _check_engines([runtime])
        names, tool = _DELEGATES[runtime], TOOL_NAMES[runtime]
        if not find(name, names) and find(name.partition(":")[0], ENGINES[runtime].DELEGATES):
            raise NotAvailable(f"{tool} has no delegate {name!r}: choose from {', '.join(names)}")
        return choose(name, names, what=f"delegate of {tool}")

    def check(self, specs: Sequence[BenchSpec], plan: BenchPlan) -> None:
        """Refuses what the tools cannot do; see ``Device``."""
        _binary_for(specs, plan)

    def measure(
        self, jobs: Sequence[BenchJob], plan: BenchPlan, progress: StatusProgress
    ) -> list[BenchResult]:
        """Measures jobs; see ``Device``."""
        binary = _binary_for([job.spec for job in jobs], plan)
        client = Client(self._serial)
        folder = self._folder = RemoteFolder(client)
        atexit.register(self.close)  # an interrupted program does not wait for other threads
        try:
            folder.open()
            name = TOOL_NAMES[jobs[0].spec.runtime]
            machine = facts.describe(client, name, sha256(binary))
            device = f"adb:{client.serial}"
            runs = [
                _ToolRuns(Measurement(job, plan.timing, device), folder, binary) for job in jobs
            ]
            _measure(runs, plan.timing, progress)
            return [run.measurement.result(machine) for run in runs]
        finally:
            self.close()
            atexit.unregister(self.close)

    def close(self) -> None:
        """Removes what was copied to the phone, and ends what runs there."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()


def _check_engines(engines: Sequence[str]) -> None:
    """Refuses engines that no tool has, and several."""
    for engine in engines:
        if engine not in TOOL_NAMES:
            raise InvalidRequest(
                f"--device adb has no program for {engine}: choose from {', '.join(TOOL_NAMES)}"
            )
    if len(engines) > 1:
        raise InvalidRequest(
            "--device adb measures one format at a time, each with a program of its own: save a "
            "record of each with --json, and compare those"
        )


def _binary_for(specs: Sequence[BenchSpec], plan: BenchPlan) -> Path:
    """Returns the program that measures; raises ``InvalidRequest`` for what it cannot do."""
    unsupported = {
        "--accuracy": plan.passes.accuracy_data is not None,
        "--profile-ops": bool(plan.passes.operators),
        "--sustained": bool(plan.passes.sustained_s),
    }
    for option, requested in unsupported.items():
        if requested:
            raise InvalidRequest(f"{option} is not for --device adb: the tools there only time")
    engines = list(dict.fromkeys(spec.runtime for spec in specs))
    _check_engines(engines)
    if "litert" in engines and plan.timing.headline not in litert_tool.HEADLINES:
        raise InvalidRequest(
            f"{litert_tool.NAME} tells the 50th and 95th percentile, not the "
            f"{plan.timing.headline}th of --profile strict: leave that out, --min-seconds 60 is as "
            "long"
        )
    binary = plan.passes.benchmark_binary
    if binary is None:
        raise InvalidRequest(
            f"--device adb measures with {TOOL_NAMES[engines[0]]}: name that with "
            "--benchmark-binary (docs/android-bench.md says where it is)"
        )
    check_file(binary, "program")
    return binary


class _ToolRuns:
    """The runs of a tool for one artifact.

    Args:
        measurement: gets the figures.
        folder: on the phone.
        binary: the tool.
    """

    def __init__(self, measurement: Measurement, folder: RemoteFolder, binary: Path) -> None:
        self.measurement = measurement
        self._folder, self._binary = folder, binary
        self._tool: Tool
        self._reports: list[Report] = []

    def prepare(self) -> None:
        """Runs the artifact once, and compares it with its golden images."""
        measurement, job = self.measurement, self.measurement.job
        tool = self._tool = _TOOLS[job.spec.runtime](self._folder, self._binary, job.path, job.spec)
        report = tool.first()
        runtime = Runtime.of(
            job.spec,
            accelerator=tool.accelerator,
            delegate=tool.delegate,
            nodes=(report.delegated_nodes, report.total_nodes),
        )
        measurement.opened = Opened(
            runtime, tool.contract, report.load_ms, report.first_inference_ms
        )
        measurement.golden = tool.golden()

    def time(self, runs: int, seconds: float, warmup_s: float) -> None:
        """Times one repeat."""
        timings, client = self.measurement.timings, self._folder.client
        timings.begin_repeat(facts.conditions(client))
        report = self._tool.timed(runs, seconds, warmup_s)
        self._reports.append(report)
        timings.add(Burst(report.times_ns))
        timings.end_repeat(facts.conditions(client))

    def finish(self, agreement: float) -> None:
        """Measures the memory; of the statistics of several repeats, takes the middle one."""
        statistics = [report.reported_ms for report in self._reports if report.reported_ms]
        if statistics:
            statistics.sort(key=lambda latency: latency.p50)
            self.measurement.reported_ms = statistics[(len(statistics) - 1) // 2]
            medians = [latency.p50 for latency in statistics]
            self.measurement.notes += _disagreement(medians, agreement)
        self.measurement.peak_rss_bytes = self._tool.memory()


def _disagreement(medians: list[float], agreement: float) -> Iterator[str]:
    """Yields a warning if repeats, in order of their medians, do not agree."""
    if exceeds(medians[-1] - medians[0], agreement * medians[0]):
        figures = ", ".join(f"{median:.3f}" for median in medians)
        yield (
            f"the repeats do not agree within {agreement:.0%}: p50 is {figures} ms, the middle one "
            "is reported; let the phone cool and rest, measure again"
        )


def _measure(tool_runs: Sequence[_ToolRuns], timing: Timing, progress: StatusProgress) -> None:
    for run in tool_runs:
        progress(f"{run.measurement.path}: once, on the phone")
        run.measurement.attempt(run.prepare)
    runs = math.ceil(timing.min_runs / timing.repeats)
    seconds = timing.min_s / timing.repeats
    for repeat in range(timing.repeats):
        label = f", repeat {repeat + 1} of {timing.repeats}" if timing.repeats > 1 else ""
        for run in tool_runs:
            progress(f"timing {run.measurement.path} on the phone{label}")
            run.measurement.attempt(run.time, runs, seconds, timing.warmup_s)
    for run in tool_runs:
        run.measurement.attempt(run.finish, timing.agreement)
