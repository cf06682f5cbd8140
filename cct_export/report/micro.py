"""What TFLite Micro makes of files, on a terminal."""

import logging
from collections.abc import Sequence

from cct_export.records import MicroReport, OperatorKind
from cct_export.report import rows
from cct_export.report.columns import Column
from cct_export.report.tables import print_table
from cct_export.report.terminal import say

log = logging.getLogger(__name__)


def show(reports: Sequence[MicroReport]) -> None:
    """Prints a row per file, and the operators of each; logs failures and warnings."""
    print_table(_columns(reports), reports, f"{reports[0].engine}, {reports[0].reference}")
    for report in reports:
        say()
        kinds: list[Column[OperatorKind]] = [
            Column("kind", lambda kind: kind.name),
            Column.number("operators", lambda kind: kind.count),
        ]
        print_table(kinds, report.operators, str(report.path))
        for warning in report.warnings:
            log.warning("%s: %s", report.path, warning)
        if report.golden is not None and not report.passed:
            log.error("%s: parity FAILED: %s", report.path, "; ".join(report.golden.failures))


def _columns(reports: Sequence[MicroReport]) -> list[Column[MicroReport]]:
    names = rows.file_names([str(report.path) for report in reports])
    return [
        Column("artifact", lambda report: names[str(report.path)]),
        Column.number("arena bytes", lambda report: report.arena_bytes),
        Column.number("operators", lambda report: sum(kind.count for kind in report.operators)),
        Column("parity", _parity),
        Column("equal to LiteRT", _equal),
        Column.number("most steps", lambda report: report.max_steps, "g"),
        Column("images", lambda report: report.images),
    ]


def _parity(report: MicroReport) -> str:
    if report.golden is None:
        return "unknown"
    return "passed" if report.passed else "FAILED"


def _equal(report: MicroReport) -> str:
    return f"{report.samples - report.differing}/{report.samples}"
