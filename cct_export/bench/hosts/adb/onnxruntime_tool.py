"""ONNX Runtime's ``onnxruntime_perf_test`` on a phone: its flags, its output, and a file in it.

It tells the time of every run, in a file. It cannot show what it computes.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from cct_export.bench.hosts.adb.client import RemoteFolder
from cct_export.bench.hosts.adb.tool import (
    START_LIMIT_S,
    DelegateOptions,
    Report,
    copy_tool,
    failure,
    parse_options,
)
from cct_export.errors import EngineFailed, InvalidRequest, NotAvailable
from cct_export.evaluation.golden import GoldenCheck
from cct_export.files import check_file
from cct_export.records import Contract, sidecar
from cct_export.specs import BenchSpec

NAME = "onnxruntime_perf_test"
DELEGATES = {
    "default": "cpu", "cpu": "cpu", "xnnpack": "xnnpack", "nnapi": "nnapi", "qnn": "qnn",
    "webgpu": "webgpu",
}  # fmt: skip
# The name of the batch axis in every file of this package that takes any number of images.
BATCH_AXIS = "batch"

_ACCELERATORS = {"nnapi": "npu", "qnn": "npu", "webgpu": "gpu"}
_CREATION = re.compile(r"Session creation time cost: ?([\d.e+-]+) s")
_FIRST = re.compile(r"First inference time cost: ?([\d.e+-]+) ms")
_SEPARATORS = re.compile(r"[\s|]")


def accelerated(spec: BenchSpec) -> bool:
    """Returns whether another provider than the CPU's is requested."""
    return DELEGATES[spec.delegation.name] != "cpu"


def arguments(spec: BenchSpec, options: DelegateOptions, any_batch: bool) -> list[str]:
    """Returns the flags for threads, batch and provider.

    They make the engine refuse a file that the provider does not take as a whole: the tool does not
    tell how much it takes.

    Args:
        spec: threads, batch and provider.
        options: of the provider.
        any_batch: whether the file takes any number of images.

    Raises:
        InvalidRequest: an option that cannot be passed on.
    """
    flags = ["-e", DELEGATES[spec.delegation.name], "-x", str(spec.threads), "-y", "1", "-I"]
    if any_batch:
        flags += ["-f", f"{BATCH_AXIS}:{spec.batch}"]
    if accelerated(spec):
        flags += ["-C", "session.disable_cpu_ep_fallback|1"]
    if options.others:
        if not accelerated(spec):
            names = ", ".join(name for name, _ in options.others)
            raise InvalidRequest(f"ONNX Runtime's CPU takes no options but cpu_mask, not {names}")
        for name, value in options.others:
            if _SEPARATORS.search(name + value):
                raise InvalidRequest(f"{NAME} takes no option with a space or |: {name}={value}")
        flags += ["-i", " ".join(f"{name}|{value}" for name, value in options.others)]
    return flags


def parse(text: str, results: str) -> Report:
    """Returns the figures of a run.

    Args:
        text: output.
        results: lines of the result file: model, seconds, peak bytes, CPU usage and number of each
            run.

    Raises:
        EngineFailed: they cannot be parsed.
    """
    times, peaks = [], []
    try:
        for line in filter(None, map(str.strip, results.splitlines())):
            _, seconds, peak, _, _ = line.rsplit(",", 4)
            times.append(round(float(seconds) * 1e9))
            peaks.append(int(peak))
    except (ValueError, OverflowError):
        raise EngineFailed(f"{NAME} wrote a line that cannot be read: {line[:80]!r}") from None
    if not times or min(times) < 1:
        raise EngineFailed(f"{NAME} wrote no times: {text.strip().rpartition(chr(10))[2][:80]!r}")
    creation, first = _CREATION.search(text), _FIRST.search(text)
    return Report(
        times_ns=tuple(times),
        load_ms=float(creation[1]) * 1e3 if creation else None,
        # It tells whole milliseconds: 0 is less than one.
        first_inference_ms=float(first[1]) or None if first else None,
        peak_rss_bytes=max(peaks) or None,
    )


class OnnxRuntimeTool:
    """An ``.onnx`` file in ``onnxruntime_perf_test`` on a phone. See ``Tool``.

    Args:
        folder: on the phone.
        binary: the program.
        path: the file.
        spec: threads, batch and provider.

    Raises:
        InvalidRequest: no such file.
        InvalidRequest: an invalid option, or another number of images.
        NotAvailable: there is no such provider, or the phone does not take the files.
    """

    def __init__(self, folder: RemoteFolder, binary: Path, path: Path, spec: BenchSpec) -> None:
        self._options = parse_options(spec.delegation, DELEGATES, None, NAME)
        if spec.delegation.allow_fallback and accelerated(spec):
            raise NotAvailable(
                f"{NAME} does not tell which nodes {spec.delegation.name} takes: without "
                "--allow-fallback the engine makes sure that it is all of them"
            )
        check_file(path)
        beside = sidecar.read(path)
        self.contract = beside.contract if beside else Contract(format="onnx")
        batch = self.contract.batch
        if batch not in (None, spec.batch):
            raise InvalidRequest(f"{path} takes {batch} image at a time, not {spec.batch}")
        self._flags = arguments(spec, self._options, any_batch=batch is None)
        self._folder, self._path, self._spec = folder, path, spec
        self._binary = copy_tool(folder, binary)
        self._model = folder.copy(path, ".onnx")
        self.delegate = DELEGATES[spec.delegation.name]
        self.accelerator = _ACCELERATORS.get(self.delegate, "cpu")
        self._results = f"{folder.prefix()}results"
        self._peak: int | None = None

    def first(self) -> Report:
        """Runs once; see ``Tool``."""
        return self._run(["-r", "1"], START_LIMIT_S)

    def golden(self) -> GoldenCheck:
        """Returns that parity is unknown; see ``Tool``."""
        changed = sidecar.examine(self._path).changed
        return GoldenCheck(changed=changed, unknown=f"{NAME} does not show what it computes")

    def timed(self, runs: int, seconds: float, warmup_s: float) -> Report:
        """Times runs; see ``Tool``. The tool warms up with one run: more are dropped here."""
        whole_s = max(1, math.ceil(seconds + warmup_s))
        report = self._run(["-t", str(whole_s)], START_LIMIT_S + 2 * whole_s)
        dropped = _warm_up_runs(report.times_ns, warmup_s)
        missing = runs + dropped - len(report.times_ns)
        if missing > 0:
            each_s = sum(report.times_ns) / len(report.times_ns) / 1e9
            limit_s = START_LIMIT_S + 4 * (runs + dropped) * each_s
            report = self._run(["-r", str(runs + dropped)], limit_s)
            dropped = min(_warm_up_runs(report.times_ns, warmup_s), dropped)
        self._peak = report.peak_rss_bytes
        return Report(report.times_ns[dropped:], peak_rss_bytes=self._peak)

    def memory(self) -> int | None:
        """Returns the peak memory of the timed runs; see ``Tool``."""
        return self._peak

    def _run(self, flags: Sequence[str], limit_s: float) -> Report:
        """Returns the figures of a run; raises ``CCTExportError`` if it fails."""
        self._folder.remove(self._results)
        path = f"{self._folder.path}/{self._results}"
        command = [*self._options.prefix, self._binary, *self._flags, *flags, self._model, path]
        ended = self._folder.run(command, limit_s)
        subject = f"{NAME} on {self._path}"
        if ended.code:
            raise failure(ended, subject, accelerated(self._spec))
        results = self._folder.read(self._results)
        if results is None:
            raise EngineFailed(f"{subject} wrote no times: {ended.text.strip()[-80:]!r}")
        return parse(ended.text, results.decode(errors="replace"))


def _warm_up_runs(times_ns: Sequence[int], warmup_s: float) -> int:
    """Returns how many of the first runs the warm-up takes; not all of them."""
    spent_ns = 0.0
    for index, time_ns in enumerate(times_ns):
        if spent_ns >= warmup_s * 1e9:
            return index
        spent_ns += time_ns
    return max(0, len(times_ns) - 1)
