"""The results of ``cct-bench`` on a terminal, and plots of operators."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from cct_export.bench import statistics
from cct_export.bench.regression import Verdict
from cct_export.records import Accuracy, BenchResult, OperatorProfile, OperatorTime, Sustained
from cct_export.report import plots, rows
from cct_export.report.columns import NONE, Column, number
from cct_export.report.tables import print_table
from cct_export.report.terminal import say
from cct_export.text import plural

log = logging.getLogger(__name__)

# More bars make a plot unreadable; those of the fastest operators could not be seen anyway.
MOST_BARS = 40
# Operators that a table has a row for.
MOST_ROWS = 20


def show(results: Sequence[BenchResult], ratios: bool = False) -> None:
    """Prints a row per result; logs accuracy, operators, sustained latency, failures, warnings.

    Args:
        results: in the order of the rows, at least one.
        ratios: whether to print latencies relative to the first result.
    """
    runtimes = [result.runtime for result in results]
    engines = sorted(
        {f"{runtime.name} {runtime.version}" for runtime in runtimes if runtime.version}
    )
    columns = _columns(results, results[0] if ratios else None)
    print_table(columns, results, ", ".join(engines))
    for result in results:
        _show_details(result, with_engine=_engines_differ(results))


def _columns(
    results: Sequence[BenchResult], reference: BenchResult | None
) -> list[Column[BenchResult]]:
    """Returns the columns of the table; ratios only with a ``reference``."""
    names = rows.file_names([result.artifact.path for result in results])
    devices: list[Column[BenchResult]] = []
    if any(result.device != "local" for result in results):
        devices = [Column("device", lambda result: result.device)]
    engines: list[Column[BenchResult]] = []
    if _engines_differ(results):
        engines = [Column("engine", lambda result: result.runtime.name)]
    ratios: list[Column[BenchResult]] = []
    if reference is not None:
        ratios = [
            Column(
                "ratio",
                lambda result: _ratio(result, reference),
                lambda result: getattr(rows.ratio(result, reference), "value", None),
            )
        ]
    ranks = sorted({50, 90, *(result.headline for result in results)})
    # What one compares comes first: a narrow terminal shows the rest in a table below.
    return [
        Column("artifact", lambda result: names[result.artifact.path]),
        *engines,
        *devices,
        Column("scheme", lambda result: result.artifact.scheme),
        *map(_percentile, ranks),
        *ratios,
        Column.number("top-1", lambda result: getattr(result.accuracy, "top1", None), ".2%"),
        Column.number("kB", lambda result: rows.scaled(result.artifact.size_bytes, 1e3), ",.0f"),
        Column("parity", rows.parity_status),
        Column.number("images/s", rows.throughput, ",.0f"),
        Column.number("peak MB", lambda result: rows.scaled(result.peak_rss_bytes, 1e6), ".0f"),
        Column.number("load ms", lambda result: result.load_ms, ".1f"),
        Column.number("first ms", lambda result: result.first_inference_ms, ".2f"),
        Column("delegate", lambda result: _file_name(result.runtime.delegate)),
        Column(
            "delegated",
            lambda result: _delegated(result.runtime.delegated_nodes, result.runtime.total_nodes),
            lambda result: result.runtime.delegated_nodes,
        ),
        Column.number("threads", lambda result: result.runtime.threads, "d"),
        Column.number("batch", lambda result: result.batch, "d"),
    ]


def _percentile(rank: int) -> Column[BenchResult]:
    return Column.number(
        f"p{rank} ms",
        lambda result: getattr(statistics.summary_of(result), f"p{rank}", None),
        ".3f",
    )


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _delegated(delegated: int | None, total: int | None) -> str:
    return NONE if total is None else f"{number(delegated, 'd')}/{total}"


def _ratio(result: BenchResult, reference: BenchResult) -> str:
    ratio = rows.ratio(result, reference)
    return NONE if ratio is None else f"{ratio.value:.2f} ± {(ratio.high - ratio.low) / 2:.2f}"


def _engines_differ(results: Sequence[BenchResult]) -> bool:
    """Returns whether files of one format ran on several engines."""
    engines = {(result.artifact.format, result.runtime.name) for result in results}
    return len(engines) > len({format for format, _ in engines})


def _show_details(result: BenchResult, *, with_engine: bool) -> None:
    engine = f" in {result.runtime.name}" if with_engine else ""
    device = "" if result.device == "local" else f" on {result.device}"
    subject = f"{result.artifact.path}{engine}{device}"
    if result.failure:
        log.error("%s: %s", subject, result.failure)
    if result.parity is not None and not result.parity.passed:
        log.error("%s: not timed, parity FAILED: %s", subject, "; ".join(result.parity.failures))
    if result.accuracy is not None:
        _log_accuracy(subject, result.accuracy)
    if result.operators is not None:
        show_operators(result.operators, subject)
    if result.sustained is not None:
        _log_sustained(subject, result.sustained)
    for warning in result.warnings:
        log.warning("%s: %s", subject, warning)


def _log_accuracy(subject: str, accuracy: Accuracy) -> None:
    log.info(
        "%s: top-1 %.2f %% (%.2f to %.2f), %scalibration error %.3f, %d images of %s",
        subject,
        100 * accuracy.top1,
        100 * accuracy.top1_interval[0],
        100 * accuracy.top1_interval[1],
        "" if accuracy.top5 is None else f"top-5 {100 * accuracy.top5:.2f} %, ",
        accuracy.calibration_error,
        accuracy.samples,
        accuracy.data,
    )
    if accuracy.paired is not None:
        log.info(
            "%s: Keras %.2f %%; correct in Keras only: %d images, in the file only: %d "
            "(McNemar p = %.2g)",
            subject,
            100 * accuracy.paired.reference_top1,
            accuracy.paired.only_reference,
            accuracy.paired.only_candidate,
            accuracy.paired.p_value,
        )


def _log_sustained(subject: str, sustained: Sustained) -> None:
    intervals = max(1, round(60 / sustained.interval_s))
    first, last = sustained.p50_ms[:intervals], sustained.p50_ms[-intervals:]
    first_ms, last_ms = sum(first) / len(first), sum(last) / len(last)
    log.info(
        "%s: sustained %.0f s, first minute %.3f ms, last minute %.3f ms (%.2f times)",
        subject,
        len(sustained.p50_ms) * sustained.interval_s,
        first_ms,
        last_ms,
        last_ms / first_ms,
    )


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Logs a line per verdict; as an error if it is not a pass."""
    for verdict in verdicts:
        level = logging.INFO if verdict.status == "pass" else logging.ERROR
        log.log(level, "%s: %s, %s", verdict.status, verdict.subject, verdict.why)


def show_operators(profile: OperatorProfile, title: str) -> None:
    """Prints the slowest operators, then a row per kind, the total and the note.

    Args:
        profile: of one artifact.
        title: of the table.
    """
    total = total_ms(profile.operators)
    ranked = slowest_first(profile)
    operators: list[Column[OperatorTime]] = [
        Column("operator", lambda operator: operator.name),
        Column("kind", lambda operator: operator.kind),
        Column.number("ms", lambda operator: operator.ms, ".4f"),
        Column("share", lambda operator: _share(operator.ms, total), lambda operator: operator.ms),
        Column("where", lambda operator: operator.where),
        Column("", lambda operator: "within noise" if operator.within_noise else ""),
    ]
    kinds: list[Column[tuple[str, list[OperatorTime]]]] = [
        Column("kind", lambda kind: kind[0]),
        Column.number("operators", lambda kind: len(kind[1]), "d"),
        Column.number("ms", lambda kind: total_ms(kind[1]), ".4f"),
        Column(
            "share", lambda kind: _share(total_ms(kind[1]), total), lambda kind: total_ms(kind[1])
        ),
    ]
    print_table(operators, ranked[:MOST_ROWS], title)
    if others := ranked[MOST_ROWS:]:
        say(_others(others, total))
    say()
    print_table(kinds, by_kind(profile).items(), "by kind")
    say()
    derived = "derived, " if profile.derived else ""
    count = plural(len(profile.operators), "operator")
    say(f"{total:.4f} ms in {count}, {derived}medians of {plural(profile.runs, 'run')}")
    say(profile.note)


def _others(operators: Sequence[OperatorTime], total: float) -> str:
    """Returns a line about the operators that have no row."""
    ms = total_ms(operators)
    line = f"and {len(operators)} others: {ms:.4f} ms, {_share(ms, total)}; --json has them all"
    noise = sum(operator.within_noise for operator in operators)
    return line + (f"; {noise} {'is' if noise == 1 else 'are'} within noise" if noise else "")


def slowest_first(profile: OperatorProfile) -> list[OperatorTime]:
    """Returns the operators by time; equal ones in the order in which they run."""
    return sorted(profile.operators, key=lambda operator: -operator.ms)


def total_ms(operators: Iterable[OperatorTime]) -> float:
    """Returns the milliseconds of all operators; derived ones may be negative."""
    return sum(operator.ms for operator in operators)


def by_kind(profile: OperatorProfile) -> dict[str, list[OperatorTime]]:
    """Returns the operators of each kind, the kind with the longest total first."""
    kinds: dict[str, list[OperatorTime]] = {}
    for operator in profile.operators:
        kinds.setdefault(operator.kind, []).append(operator)
    return dict(sorted(kinds.items(), key=lambda item: -total_ms(item[1])))


def _share(ms: float, total: float) -> str:
    return f"{ms / total:.1%}" if total > 0 else NONE


def plot_operators(profile: OperatorProfile, path: Path, title: str) -> None:
    """Draws a bar per operator, the slowest on top, ``MOST_BARS`` at most.

    Args:
        profile: of one artifact.
        path: the ``.png`` file to write.
        title: of the plot.

    Raises:
        MissingDependency: matplotlib is not installed.
        OutputError: ``path`` cannot be written.
    """
    operators = slowest_first(profile)
    drawn = operators[:MOST_BARS]
    rest = len(operators) - len(drawn)
    omitted = f", without the {rest} shortest" if rest else ""
    plots.bars(
        path,
        [f"{operator.name} ({operator.kind})" for operator in drawn],
        [operator.ms for operator in drawn],
        "derived ms (differences of medians)" if profile.derived else "ms (median)",
        f"{title}: {total_ms(operators):.3f} ms in {plural(len(operators), 'operator')}{omitted}",
    )
