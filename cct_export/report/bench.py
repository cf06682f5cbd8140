"""Measurements on a terminal and as a record."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cct_export.bench import record as written
from cct_export.bench import statistics
from cct_export.bench.regression import Verdict
from cct_export.records import Accuracy, BenchResult, Sustained
from cct_export.report import operators, rows, terminal
from cct_export.report.terminal import text

log = logging.getLogger(__name__)

LEFT = ("artifact", "device", "scheme", "delegate")


def record(results: Sequence[BenchResult]) -> dict[str, Any]:
    """Returns the JSON record of ``results``."""
    return written.to_dict(results)


def show(results: Sequence[BenchResult], ratios: bool = False) -> None:
    """Prints one row per result, what is known beside, and the warnings.

    Args:
        results: in the order in which they are printed.
        ratios: whether to print latencies relative to the first, too.
    """
    console = terminal.console()
    engines = sorted(
        {f"{r.runtime.name} {r.runtime.version}" for r in results if r.runtime.version}
    )
    table = Table(box=None, title=", ".join(engines), title_justify="left")
    cells = [_row(result, results[0] if ratios else None) for result in results]
    if all(result.device == "local" for result in results):
        for row in cells:
            del row["device"]
    for name in cells[0]:
        left = name in LEFT
        table.add_column(
            name, justify="left" if left else "right", no_wrap=name != "artifact", overflow="fold"
        )
    for row in cells:
        table.add_row(*row.values())
    console.print(table)
    for result in results:
        _show_more(result)


def _row(result: BenchResult, reference: BenchResult | None) -> dict[str, str]:
    """Returns what a row says, by column."""
    runtime, artifact = result.runtime, result.artifact
    summary = statistics.summary_of(result)
    latency = {
        f"p{rank} ms": _number(getattr(summary, f"p{rank}", None), ".3f")
        for rank in sorted({50, 90, result.headline})
    }
    ratio = {} if reference is None else {"ratio": _ratio(result, reference)}
    taken, total = runtime.delegated_nodes, runtime.total_nodes
    return {
        "artifact": text(artifact.path.rpartition("/")[2]),
        "device": text(result.device),
        "scheme": text(artifact.scheme),
        "kB": _number(artifact.size_bytes, ",.0f", 1e3),
        "delegate": text(runtime.delegate.rpartition("/")[2]),
        "threads": str(runtime.threads),
        "batch": str(result.batch),
        **latency,
        **ratio,
        "images/s": _number(result.batch / summary.p50 * 1e3 if summary else None, ",.0f"),
        "load ms": _number(result.load_ms, ".1f"),
        "first ms": _number(result.first_inference_ms, ".2f"),
        "peak MB": _number(result.peak_rss_bytes, ".0f", 1e6),
        "delegated": "–" if total is None else f"{_number(taken, 'd')}/{total}",
        "top-1": "–" if result.accuracy is None else f"{result.accuracy.top1:.2%}",
        "parity": parity(result),
    }


def parity(result: BenchResult) -> str:
    """Returns ``passed``, ``FAILED`` or ``unknown``."""
    if result.parity is None:
        return "unknown"
    return "passed" if result.parity.passed else "FAILED"


def _ratio(result: BenchResult, reference: BenchResult) -> str:
    found = rows.ratio(result, reference)
    if found is None:
        return "–"
    return f"{found.value:.2f} ± {(found.high - found.low) / 2:.2f}"


def _show_more(result: BenchResult) -> None:
    where = "" if result.device == "local" else f" on {result.device}"
    path = f"{result.artifact.path}{where}"
    if result.failure:
        log.error("%s: %s", path, result.failure)
    if result.parity is not None and not result.parity.passed:
        log.error("%s: not timed, parity FAILED: %s", path, "; ".join(result.parity.failures))
    if result.accuracy is not None:
        _accuracy(path, result.accuracy)
    if result.operators is not None:
        operators.table(result.operators, path)
    if result.sustained is not None:
        _sustained(path, result.sustained)
    for warning in result.warnings:
        log.warning("%s: %s", path, warning)


def _accuracy(path: str, found: Accuracy) -> None:
    log.info(
        "%s: top-1 %.2f %% (%.2f to %.2f), top-5 %.2f %%, calibration error %.3f, %d images of %s",
        path,
        100 * found.top1,
        100 * found.top1_interval[0],
        100 * found.top1_interval[1],
        100 * found.top5,
        found.calibration_error,
        found.samples,
        found.data,
    )
    if found.paired is not None:
        log.info(
            "%s: Keras %.2f %%; right alone: Keras %d images, the file %d (McNemar p = %.2g)",
            path,
            100 * found.paired.reference_top1,
            found.paired.only_reference,
            found.paired.only_candidate,
            found.paired.p_value,
        )


def _sustained(path: str, found: Sustained) -> None:
    points = max(1, round(60 / found.interval_s))
    first, last = found.p50_ms[:points], found.p50_ms[-points:]
    early, late = sum(first) / len(first), sum(last) / len(last)
    log.info(
        "%s: sustained %.0f s, first minute %.3f ms, last minute %.3f ms (%.2f times)",
        path,
        len(found.p50_ms) * found.interval_s,
        early,
        late,
        late / early,
    )


def plot_operators(result: BenchResult, path: Path) -> None:
    """Draws the times of the operators of ``result``, if they were measured.

    Args:
        result: of one artifact.
        path: a ``.png`` file.

    Raises:
        MissingDependency: matplotlib is not installed.
        OutputError: ``path`` cannot be written.
    """
    if result.operators is not None:
        operators.plot(result.operators, path, str(result.artifact.path))


def verdicts(found: Sequence[Verdict]) -> None:
    """Prints one line per verdict."""
    for verdict in found:
        level = logging.INFO if verdict.status == "pass" else logging.ERROR
        log.log(level, "%s: %s, %s", verdict.status, verdict.subject, verdict.why)


def _number(value: float | None, pattern: str, unit: float | None = None) -> str:
    """Returns a figure, or a dash where there is none."""
    if value is None:
        return "–"
    return format(value / unit if unit else value, pattern)
