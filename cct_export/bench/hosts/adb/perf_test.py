"""ONNX Runtime's ``onnxruntime_perf_test``: how it is called, and what its output says.

It tells the time of every run, in a file. It cannot show what it computes.
"""

import re

from cct_export.bench.hosts.adb.report import Report
from cct_export.bench.hosts.adb.settings import Settings
from cct_export.errors import EngineFailed, InvalidRequest
from cct_export.specs import BenchSpec

NAME = "onnxruntime_perf_test"
DELEGATES = {
    "default": "cpu", "cpu": "cpu", "xnnpack": "xnnpack", "nnapi": "nnapi", "qnn": "qnn",
    "webgpu": "webgpu",
}  # fmt: skip
# As every file of this package names the axis that is any number of images.
BATCH_AXIS = "batch"

_CREATION = re.compile(r"Session creation time cost: ?([\d.e+-]+) s")
_FIRST = re.compile(r"First inference time cost: ?([\d.e+-]+) ms")
_NOT_A_WORD = re.compile(r"[\s|]")


def accelerated(spec: BenchSpec) -> bool:
    """Tells whether another provider than the CPU's is asked for."""
    return DELEGATES[spec.delegation.name] != "cpu"


def arguments(spec: BenchSpec, settings: Settings, any_batch: bool) -> list[str]:
    """Returns the flags that say on what it runs.

    The engine is told to refuse a file that its provider does not take as a whole: how much it
    takes, the tool does not say.

    Args:
        spec: threads, batch and provider.
        settings: the options of the provider.
        any_batch: whether the file takes any number of images.

    Raises:
        InvalidRequest: an option that cannot be handed on.
    """
    flags = ["-e", DELEGATES[spec.delegation.name], "-x", str(spec.threads), "-y", "1", "-I"]
    if any_batch:
        flags += ["-f", f"{BATCH_AXIS}:{spec.batch}"]
    if accelerated(spec):
        flags += ["-C", "session.disable_cpu_ep_fallback|1"]
    if settings.others:
        if not accelerated(spec):
            names = ", ".join(name for name, _ in settings.others)
            raise InvalidRequest(f"ONNX Runtime's CPU takes no options but cpu_mask, not {names}")
        for name, value in settings.others:
            if _NOT_A_WORD.search(name + value):
                raise InvalidRequest(f"{NAME} takes no option with a space or |: {name}={value}")
        flags += ["-i", " ".join(f"{name}|{value}" for name, value in settings.others)]
    return flags


def parse(text: str, lines: str) -> Report:
    """Returns what the output of a run and its result file say.

    Args:
        text: output.
        lines: of the file: model, seconds, peak bytes, CPU usage and number of each run.

    Raises:
        EngineFailed: they cannot be understood.
    """
    times, peaks = [], []
    try:
        for line in filter(None, map(str.strip, lines.splitlines())):
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
