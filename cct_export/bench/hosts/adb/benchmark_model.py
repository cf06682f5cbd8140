"""LiteRT's ``benchmark_model``: how it is called, and what its output says.

It is the tool of the interpreter, of ``tflite/tools/benchmark`` in LiteRT's sources. That of the
CompiledModel API has the same name and other flags; it cannot write what it computes.
"""

import re
from pathlib import Path

from cct_export.bench.hosts.adb.report import Report
from cct_export.bench.hosts.adb.settings import Settings
from cct_export.errors import EngineFailed, NotAvailable
from cct_export.records import ReportedLatency
from cct_export.specs import BenchSpec

NAME = "benchmark_model"
# What the user says: the tool's flags, and a part of the name that LiteRT has for the delegate.
DELEGATES: dict[str, tuple[tuple[str, ...], str]] = {
    "default": (("--use_xnnpack=true",), "xnnpack"),
    "xnnpack": (("--use_xnnpack=true",), "xnnpack"),
    "none": (("--use_xnnpack=false",), ""),
    "gpu": (("--use_gpu=true",), "gpu"),
    "nnapi": (("--use_nnapi=true",), "nnapi"),
}
OPTIONS = {"gpu": ("precision",)}
# Without these it measures all the same, on random pixels, and does not show what it computes.
OUTPUT_FLAGS = ("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath")
MAX_S = 150.0  # its own default, which ends slow runs before there are enough of them

_TIMINGS = re.compile(r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+)")
_STATISTICS = re.compile(r"^(?:INFO: )?(count=\d+ .*)$", re.MULTILINE)
_FIGURE = re.compile(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?)")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.e+]+)")
_REPLACED = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\)"
    r"(?:.*?for subgraph (\d+))?"
)
_UNKNOWN = re.compile(r"Unconsumed cmdline flags: (.*)")
_APPLIED = "Explicitly applied {} delegate, and the model graph will be {} executed"
_ENDS_WITH = "Benchmarking failed."


def arguments(spec: BenchSpec, settings: Settings, model: str) -> list[str]:
    """Returns the flags that say what is run on what; see also ``timing`` and ``once``.

    Args:
        spec: threads and delegate.
        settings: the options of the delegate.
        model: path of the file there.
    """
    flags = [f"--graph={model}", f"--num_threads={spec.threads}"]
    flags += DELEGATES[spec.delegation.name][0]
    if spec.delegation.name == "gpu":
        flags.append(f"--gpu_precision_loss_allowed={str(settings.half).lower()}")
    return flags


def timing(runs: int, seconds: float, warmup_s: float) -> list[str]:
    """Returns the flags that say how often and how long."""
    return [
        f"--num_runs={runs}", f"--min_secs={seconds:g}", f"--max_secs={max(MAX_S, 2 * seconds):g}",
        "--warmup_runs=1", f"--warmup_min_secs={warmup_s:g}",
    ]  # fmt: skip


def input_flags(shape: tuple[int, ...], pixels: str) -> list[str]:
    """Returns the flags that say what goes in.

    Args:
        shape: of the model's input.
        pixels: path there of a file with the bytes of that tensor.
    """
    return [
        "--input_layer=image",
        f"--input_layer_shape={','.join(map(str, shape))}",
        f"--input_layer_value_files=image:{pixels}",
    ]


def parse(text: str, spec: BenchSpec, operators: int | None = None) -> Report:
    """Returns what the output of a run says.

    Args:
        text: output.
        spec: what was asked for.
        operators: how many the file has: the tool, as it is published, says at most that the
            delegate took all of them.

    Raises:
        EngineFailed: it cannot be understood.
    """
    times = _TIMINGS.search(text)
    told = [dict(_FIGURE.findall(line)) for line in _STATISTICS.findall(text)]
    if times is None or not told:
        last = text.strip().rpartition("\n")[2]
        raise EngineFailed(f"{NAME} said no times that can be read; its last line: {last!r}")
    peak = _PEAK.search(text)
    taken, total = _nodes(text, DELEGATES[spec.delegation.name][1])
    if total is None:
        total = operators
        taken = operators if _applied(text, spec, "completely") else taken
        taken = 0 if spec.delegation.name == "none" else taken
    return Report(
        reported_ms=_milliseconds(told[-1]),
        load_ms=float(times[1]) / 1e3,
        first_inference_ms=float(times[2]) / 1e3,
        peak_rss_bytes=round(float(peak[1]) * 2**20) if peak else None,
        delegated_nodes=taken,
        total_nodes=total,
    )


def _milliseconds(told: dict[str, str]) -> ReportedLatency | None:
    """Returns a line of statistics, which is in microseconds; runs all alike have but ``curr``."""
    same = told.get("curr") if "min" not in told else None

    def figure(name: str, otherwise: str | None = same) -> float | None:
        said = told.get(name, otherwise)
        return None if said is None else float(said) / 1e3

    median = figure("median")
    if not median:
        return None
    return ReportedLatency(
        count=int(told["count"]),
        p50=median,
        mean=figure("avg"),
        min=figure("min"),
        max=figure("max"),
        p95=figure("p95"),
        stddev=figure("std", "0" if same else None),
    )


def _nodes(text: str, delegate: str) -> tuple[int | None, int | None]:
    """Returns how many operators of the main graph the delegate took, of how many, if it says."""
    found = [
        (int(taken), int(total))
        for taken, total, name, graph in _REPLACED.findall(text)
        if delegate and delegate in name.lower() and graph in ("", "0")
    ]
    if not found:
        return None, None
    return sum(taken for taken, _ in found), max(total for _, total in found)


def unknown_flags(text: str) -> list[str]:
    """Returns the names of the flags that the tool did not know."""
    found = _UNKNOWN.search(text)
    return re.findall(r"--(\w+)", found[1]) if found else []


def check_known(text: str) -> bool:
    """Returns whether the tool can show what it computes.

    Raises:
        NotAvailable: it did not know a flag that decides what is measured.
    """
    unknown = unknown_flags(text)
    lost = [name for name in unknown if name not in OUTPUT_FLAGS]
    if lost:
        raise NotAvailable(
            f"this {NAME} does not know --{lost[0]}: take that of LiteRT's interpreter, not that "
            "of the CompiledModel API (docs/android-bench.md says where it is)"
        )
    return not unknown


def check_taken(text: str, path: Path, spec: BenchSpec, report: Report) -> str:
    """Returns what really computes: the delegate, or ``none`` where it took nothing.

    The tool goes on without a delegate that is not there: only its output tells.

    Raises:
        NotAvailable: not what was asked for.
    """
    word, allowed = spec.delegation.name, spec.delegation.allow_fallback
    if word == "none":
        return word
    whole, part = (_applied(text, spec, how) for how in ("completely", "partially"))
    if not (whole or part):
        if word == "default":
            return "none"
        raise NotAvailable(f"{word} takes no operator of {path}: {_warning(text)}")
    taken, total = report.delegated_nodes, report.total_nodes
    complete = whole or (taken is not None and taken == total)
    if not complete and word != "default" and not allowed:
        share = f"not all {total or ''}".strip() if taken is None else f"{taken} of the {total}"
        raise NotAvailable(
            f"{word} takes {share} operators of {path}: "
            "--allow-fallback measures it all the same, and says so"
        )
    return "xnnpack" if word == "default" else word


def _applied(text: str, spec: BenchSpec, how: str) -> bool:
    return _APPLIED.format(DELEGATES[spec.delegation.name][1].upper(), how) in text


def _warning(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("WARN", "ERROR"))]
    signs = ("unsupported", "not be executed", "ailed", "ould not", "ouldn't")
    told = [line for line in lines if any(sign in line for sign in signs)]
    return told[0].partition(": ")[2] if told else f"{NAME} does not say that it applied it"


def reason(text: str) -> str:
    """Returns why a run failed: the last error, but for the one that all have."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith(_ENDS_WITH)]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [""])[-1].removeprefix("ERROR: ")
