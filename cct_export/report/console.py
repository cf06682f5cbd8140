"""Results as tables and lines for a terminal."""

import logging
from collections.abc import Sequence

import click

from cct_export.records import (
    Exported,
    Imported,
    ParityReport,
    Prediction,
    Pushed,
    QuantizationSummary,
)

log = logging.getLogger(__name__)


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


def exported(outcome: Exported) -> None:
    """Says where the file is, how big, and how close."""
    artifact = outcome.artifact
    log.info(
        "%s: %s %s, %s bytes, input %s",
        artifact.path,
        artifact.format,
        artifact.scheme,
        format(artifact.size_bytes, ","),
        artifact.contract.io,
    )
    _quantization(artifact.scheme, artifact.contract.quantization)
    _tuning(outcome)
    parity(outcome.parity)


def _quantization(scheme: str, summary: QuantizationSummary | None) -> None:
    """Logs which steps compute in integers."""
    if summary is None:
        return
    modes = {"static": summary.static, "dynamic": summary.dynamic}
    parts = [f"{len(steps)} steps {mode}" for mode, steps in modes.items() if steps]
    if summary.kept_float:
        parts.append(f"kept float: {', '.join(summary.kept_float)}")
    if scheme == "int8" and summary.dynamic and not (summary.static or summary.kept_float):
        parts.append("which is what int8-dynamic does")
    log.info("integers: %s", ", ".join(parts) or "weights only")


def _tuning(outcome: Exported) -> None:
    """Logs the schemes that were tried, and what a bound cost."""
    bound = outcome.bound
    if bound is not None and bound.floats:
        log.info(
            "%.1f dB asked for: %s in float, %.1f dB instead of %.1f, %.2f times the time",
            bound.min_sqnr_db,
            ", ".join(bound.floats),
            bound.after_db,
            bound.before_db,
            bound.slowdown,
        )
    for candidate in outcome.candidates:
        log.info(
            "%-12s %8s ms %10s bytes %6s dB  %s",
            candidate.scheme,
            _number(candidate.median_ms, ".3f"),
            _number(candidate.size_bytes, ",d"),
            _number(candidate.sqnr_db, ".1f"),
            candidate.why_not or "taken",
        )


def imported(found: Imported) -> None:
    """Says what was read, that nothing of it is left over, and what became of it."""
    height, width, channels = found.image_shape
    log.info("%s: %s", found.source, found.kind)
    for note in found.notes:
        log.info("%s", note)
    if found.difference is not None:
        log.info(
            "logits differ by %.1e from the source's own on %d images",
            found.difference,
            found.images,
        )
    click.echo(
        f"{found.path}: {found.name}, {found.tensors} tensors, {found.parameters:,} parameters, "
        f"all used; {height}×{width}×{channels} → {found.classes} classes, "
        f"{found.size_bytes:,} bytes"
    )


def pushed(found: Pushed) -> None:
    """Says what was sent and where it is, or lists what would be sent."""
    for note in found.notes:
        log.info("%s", note)
    total = f"{len(found.files)} files, {sum(one.size_bytes for one in found.files):,} bytes"
    if found.url is not None:
        log.info("%s: %s on %s", found.repository, total, found.revision)
        click.echo(found.url)
        return
    for one in found.files:
        click.echo(f"{one.size_bytes:>13,}  {one.name}")
    kind = "the private repository " if found.private else ""
    click.echo(f"{total} would be sent to {kind}{found.repository}, {found.revision}")


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
