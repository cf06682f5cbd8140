"""Results as tables and lines for a terminal."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cct_export.measurement import statistics
from cct_export.results import BenchResult, ParityReport, Prediction

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cct_export.export import Exported


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


def exported(outcome: "Exported") -> None:
    """Says where the file is, how big, and how close."""
    artifact = outcome.artifact
    log.info(
        "%s: %s %s, %s bytes, input %s",
        artifact.path,
        artifact.format,
        artifact.scheme,
        format(artifact.size_bytes, ","),
        artifact.io,
    )
    _quantization(artifact.scheme, artifact.quantization)
    _tuning(outcome.tuning)
    parity(outcome.parity)


def _quantization(scheme: str, how: dict[str, Any]) -> None:
    """Says which steps compute in integers."""
    if not how:
        return
    parts = [f"{len(how[mode])} steps {mode}" for mode in ("static", "dynamic") if how[mode]]
    if how["kept_float"]:
        parts.append(f"kept float: {', '.join(how['kept_float'])}")
    if scheme == "int8" and how["dynamic"] and not (how["static"] or how["kept_float"]):
        parts.append("which is what int8-dynamic does")
    log.info("integers: %s", ", ".join(parts) or "weights only")


def _tuning(found: dict[str, Any]) -> None:
    """Says what was tried, and what a bound costs."""
    bound = found.get("bound")
    if bound and bound["floats"]:
        log.info(
            "%.1f dB asked for: %s in float, %.1f dB instead of %.1f, %.2f times the time",
            bound["min_sqnr_db"],
            ", ".join(bound["floats"]),
            bound["after_db"],
            bound["before_db"],
            bound["slowdown"],
        )
    for one in found.get("candidates", ()):
        log.info(
            "%-12s %8s ms %10s bytes %6s dB  %s",
            one["scheme"],
            _number(one["median_ms"], ".3f"),
            _number(one["size_bytes"], ",d"),
            _number(one["sqnr_db"], ".1f"),
            one["why_not"] or "taken",
        )


def parity(report: ParityReport) -> None:
    """Says in one line how close a file is, as an error if it is not close enough."""
    line = (
        f"parity {'passed' if report.passed else 'FAILED'} on {report.images}: "
        f"SQNR {report.sqnr_db:.1f} dB, "
        f"top-1 agreement {report.top1_agreement:.4f} ({report.decided} decided), "
        f"max |difference| {report.max_abs:.2e}, cosine {report.cosine:.6f}"
    )
    if report.passed:
        log.info("%s", line)
    else:
        log.error("%s\n  %s", line, "\n  ".join(report.failures))


def predictions(found: Sequence[Prediction]) -> None:
    """Prints each image with its best classes below it."""
    for prediction in found:
        click.echo(prediction.image)
        for label, share in prediction.top:
            click.echo(f"  {share:6.1%}  {label}")


COLUMNS = (
    "artifact", "scheme", "kB", "threads", "batch", "p50 ms", "p90 ms", "load ms", "first ms",
    "peak MB", "delegated", "top-1", "parity",
)  # fmt: skip
LEFT = ("artifact", "scheme")
WIDTH = 130


def bench(results: Sequence[BenchResult]) -> None:
    """Prints one row per result."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    engines = sorted({f"{r.runtime['name']} {r.runtime['version']}" for r in results})
    table = Table(box=None, title=", ".join(engines), title_justify="left")
    for name in COLUMNS:
        left = name in LEFT
        table.add_column(
            name, justify="left" if left else "right", no_wrap=name != "artifact", overflow="fold"
        )
    for result in results:
        table.add_row(*_row(result))
    console.print(table)
    for result in results:
        for warning in result.warnings:
            log.warning("%s: %s", result.artifact["path"], warning)


def _row(result: BenchResult) -> list[str]:
    times: dict[str, Any] = statistics.summary(result.times_ns)
    runtime, artifact = result.runtime, result.artifact
    size = None if artifact["size_bytes"] is None else artifact["size_bytes"] / 1e3
    peak = None if result.peak_rss_bytes is None else result.peak_rss_bytes / 1e6
    delegated = f"{_number(runtime['delegated_nodes'], 'd')}/{_number(runtime['total_nodes'], 'd')}"
    return [
        escape(artifact["path"].rpartition("/")[2]),
        escape(artifact["scheme"]),
        _number(size, ",.0f"),
        str(runtime["threads"]),
        str(result.batch),
        _number(times["p50"], ".3f"),
        _number(times["p90"], ".3f"),
        _number(result.load_ms, ".1f"),
        _number(result.first_inference_ms, ".2f"),
        _number(peak, ".0f"),
        "–" if runtime["total_nodes"] is None else delegated,
        "–" if result.accuracy is None else f"{result.accuracy.top1:.2%}",
        "unknown" if result.parity is None else "passed" if result.parity.passed else "FAILED",
    ]
