"""An ``.onnx`` file in ONNX Runtime's ``onnxruntime_perf_test`` on a phone."""

import math
from collections.abc import Sequence
from pathlib import Path

from cct_export.bench.hosts.adb import perf_test, settings
from cct_export.bench.hosts.adb.report import Report, failure
from cct_export.bench.hosts.adb.tool import START_LIMIT_S, placed
from cct_export.bench.hosts.adb.workplace import Workplace
from cct_export.errors import EngineFailed, InvalidArtifact, InvalidRequest, NotAvailable
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Contract, sidecar
from cct_export.specs import BenchSpec

_KINDS = {"nnapi": "npu", "qnn": "npu", "webgpu": "gpu"}


class WithOnnxRuntime:
    """See ``Tool``.

    Args:
        workplace: on the phone.
        binary: the tool.
        path: the file.
        spec: threads, batch and provider.

    Raises:
        InvalidArtifact: no such file.
        InvalidRequest: an option that there is not, or another number of images.
        NotAvailable: there is no such provider, or the phone does not take the files.
    """

    def __init__(self, workplace: Workplace, binary: Path, path: Path, spec: BenchSpec) -> None:
        self._settings = settings.read(spec.delegation, perf_test.DELEGATES, None, perf_test.NAME)
        if spec.delegation.allow_fallback and perf_test.accelerated(spec):
            raise NotAvailable(
                f"{perf_test.NAME} does not tell which nodes {spec.delegation.name} takes: without "
                "--allow-fallback the engine makes sure that it is all of them"
            )
        if not path.is_file():
            raise InvalidArtifact(f"no such file: {path}")
        beside = sidecar.read(path)
        self.contract = beside.contract if beside else Contract(format="onnx")
        batch = self.contract.batch
        if batch not in (None, spec.batch):
            raise InvalidRequest(f"{path} takes {batch} image at a time, not {spec.batch}")
        self._flags = perf_test.arguments(spec, self._settings, any_batch=batch is None)
        self._workplace, self._path, self._spec = workplace, path, spec
        self._binary = placed(workplace, binary)
        self._model = workplace.place(path, ".onnx")
        self.delegate = perf_test.DELEGATES[spec.delegation.name]
        self.accelerator = _KINDS.get(self.delegate, "cpu")
        self.unproven = f"{perf_test.NAME} does not show what it computes"
        self._results = f"{workplace.prefix()}results"
        self._peak: int | None = None

    def first(self) -> Report:
        """See ``Tool``."""
        return self._run(["-r", "1"], START_LIMIT_S)

    def golden(self) -> GoldenCheck:
        """See ``Tool``."""
        return GoldenCheck()

    def timed(self, runs: int, seconds: float, warmup_s: float) -> Report:
        """See ``Tool``. The tool's own warm-up is one run: the first ones are left out here."""
        whole = max(1, math.ceil(seconds + warmup_s))
        report = self._run(["-t", str(whole)], START_LIMIT_S + 2 * whole)
        left_out = _warm(report.times_ns, warmup_s)
        missing = runs + left_out - len(report.times_ns)
        if missing > 0:
            each_s = sum(report.times_ns) / len(report.times_ns) / 1e9
            limit_s = START_LIMIT_S + 4 * (runs + left_out) * each_s
            report = self._run(["-r", str(runs + left_out)], limit_s)
            left_out = min(_warm(report.times_ns, warmup_s), left_out)
        self._peak = report.peak_rss_bytes
        return Report(report.times_ns[left_out:], peak_rss_bytes=self._peak)

    def memory(self) -> int | None:
        """See ``Tool``."""
        return self._peak

    def _run(self, flags: Sequence[str], limit_s: float) -> Report:
        """Returns what the tool says and writes; raises ``CCTExportError`` if it fails."""
        self._workplace.remove(self._results)
        path = f"{self._workplace.path}/{self._results}"
        command = [*self._settings.prefix, self._binary, *self._flags, *flags, self._model, path]
        ended = self._workplace.run(command, limit_s)
        what = f"{perf_test.NAME} on {self._path}"
        if ended.code:
            raise failure(ended, what, perf_test.accelerated(self._spec))
        lines = self._workplace.read(self._results)
        if lines is None:
            raise EngineFailed(f"{what} wrote no times: {ended.text.strip()[-80:]!r}")
        return perf_test.parse(ended.text, lines.decode(errors="replace"))


def _warm(times_ns: Sequence[int], warmup_s: float) -> int:
    """Returns how many of the first runs the warm-up takes; not all of them."""
    spent = 0.0
    for index, time_ns in enumerate(times_ns):
        if spent >= warmup_s * 1e9:
            return index
        spent += time_ns
    return max(0, len(times_ns) - 1)
