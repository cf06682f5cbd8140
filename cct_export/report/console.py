"""Results as tables and lines for a terminal."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cct_export.records import Imported, ParityReport, Prediction, Pushed

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cct_export.export.pipeline import Exported


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
