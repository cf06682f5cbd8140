"""What to know before relying on a measurement, and what to do about it."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cct_export.bench.statistics import repeat_headlines_ms, spread
from cct_export.bounds import exceeds, falls_short
from cct_export.records import BenchResult
from cct_export.records.sidecar import CHANGED
from cct_export.specs import Timing
from cct_export.text import plural

FEW_RUNS = 50
NOISY = 0.1  # interquartile range over median
BUSY_CORES = 0.2
THROTTLING = 2  # Android's thermal status from which on it slows the processor
LOW_BATTERY = 20
SLOWED = 0.95  # of the frequency before
UNKNOWN_INPUT = "the file does not say what pixels it expects: it got raw 0-255"


def of(result: BenchResult, timing: Timing) -> list[str]:
    """Returns the warnings about a result.

    Args:
        result: as measured.
        timing: how it was to be measured.
    """
    warnings = [UNKNOWN_INPUT] if not result.artifact.described and not result.failure else []
    warnings += [CHANGED] if result.artifact.changed else []
    checks = (*(_OF_RAW_TIMES if result.times_ns else ()), *(_OF_LATENCY if result.timed else ()))
    for check in checks:
        warnings += check(result, timing)
    return warnings


def parity_unknown(result: BenchResult, why: str) -> str:
    """Returns why the parity of an artifact is unknown, and how to find it out."""
    path = result.artifact.path
    against = "" if result.artifact.described else " --against MODEL"
    return f"parity unknown: {why}; `cct-export verify {path}{against}` compares it with its model"


def model_not_downloaded(path: Path, source: str) -> str:
    """Returns why an accuracy is not compared with that of a model, and how to compare them."""
    command = shlex.join(["cct-bench", "compare", str(path), source])
    return f"accuracy not compared with Keras: only the file names its model; `{command}` names it"


def _few_runs(result: BenchResult, timing: Timing) -> Iterator[str]:
    count = len(result.times_ns) or (result.reported_ms.count if result.reported_ms else 0)
    if count < FEW_RUNS:
        runs = plural(round(count), "run")
        yield f"only {runs}: --min-runs {FEW_RUNS} or more tells what is usual"


def _noisy(result: BenchResult, timing: Timing) -> Iterator[str]:
    lower, median, upper = np.percentile(result.times_ns, (25, 50, 75))
    if exceeds(upper - lower, NOISY * median):
        yield (
            f"noisy: the interquartile range is {(upper - lower) / median:.0%} of the median; "
            "close other programs, and measure longer with --profile strict"
        )


def _disagreement(result: BenchResult, timing: Timing) -> Iterator[str]:
    if exceeds(spread(result), timing.agreement):
        headlines = ", ".join(f"{headline:.3f}" for headline in repeat_headlines_ms(result))
        yield (
            f"the repeats do not agree within {timing.agreement:.0%}: p{result.headline} is "
            f"{headlines} ms; measure again on a quiet machine"
        )


def _threads(result: BenchResult, timing: Timing) -> Iterator[str]:
    threads, cores = result.runtime.threads, result.machine.cores
    if cores is not None and threads > cores:
        yield f"{threads} threads on {plural(cores, 'core')}: they wait for each other"


def _governor(result: BenchResult, timing: Timing) -> Iterator[str]:
    governor = result.conditions.before.governor
    if governor not in (None, "performance"):
        yield (
            f"the frequency governor is {governor!r}: "
            "`sudo cpupower frequency-set -g performance` keeps the frequency constant"
        )


def _other_programs(result: BenchResult, timing: Timing) -> Iterator[str]:
    others = result.conditions.other_cores
    if others is not None and exceeds(others, BUSY_CORES):
        yield f"other programs kept {others:.1f} cores busy meanwhile: stop them, measure again"


def _throttling(result: BenchResult, timing: Timing) -> Iterator[str]:
    before, after = result.conditions.before, result.conditions.after
    reasons = [*(before.throttled or ()), *(after.throttled or ())]
    if reasons:
        yield (
            f"the Raspberry Pi was throttled ({', '.join(dict.fromkeys(reasons))}): "
            "cool it, give it a proper power supply"
        )
    first, last = before.frequency_mhz, after.frequency_mhz
    if first and last and falls_short(last, SLOWED * first):
        yield (
            f"the processor fell from {first:.0f} to {last:.0f} MHz: "
            "let it cool, --sustained shows how far it goes"
        )


def _phone(result: BenchResult, timing: Timing) -> Iterator[str]:
    before, after = result.conditions.before, result.conditions.after
    status = max(before.thermal_status or 0, after.thermal_status or 0)
    if status >= THROTTLING:
        yield f"the phone was hot and throttled (thermal status {status} of 6): let it cool"
    level = after.battery_percent
    if level is not None and falls_short(level, LOW_BATTERY):
        yield f"the battery is at {level} %: many phones save power then, charge it first"
    if before.charging or after.charging:
        yield "the battery was charging, which heats the phone: `adb tcpip 5555` needs no cable"


def _fallback(result: BenchResult, timing: Timing) -> Iterator[str]:
    delegated, total = result.runtime.delegated_nodes, result.runtime.total_nodes
    own_kernels = result.runtime.delegate in ("none", "reference")
    if not own_kernels and delegated is not None and total is not None and delegated < total:
        yield (
            f"{total - delegated} of {total} operators were not taken by "
            f"{result.runtime.delegate} and ran on the engine's own kernels"
        )


def _reconnections(result: BenchResult, timing: Timing) -> Iterator[str]:
    count = result.conditions.reconnections
    if count:
        times = "once" if count == 1 else f"{count} times"
        yield f"the connection to {result.device} broke {times}; the runs before count too"


_Check = Callable[[BenchResult, Timing], Iterator[str]]
_OF_RAW_TIMES: tuple[_Check, ...] = (_noisy, _disagreement)
_OF_LATENCY: tuple[_Check, ...] = (
    _few_runs, _threads, _governor, _other_programs, _throttling, _phone, _fallback,
    _reconnections,
)  # fmt: skip
