"""What ``auto`` tried, and how to measure what it chose."""

import logging
import shlex
from collections.abc import Sequence

from cct_export.records import Exported, TriedScheme
from cct_export.report.columns import Column
from cct_export.report.rows import scaled
from cct_export.report.tables import print_table
from cct_export.specs import ENGINE_FORMATS

log = logging.getLogger(__name__)


def candidate_columns(rows: Sequence[TriedScheme]) -> list[Column[TriedScheme]]:
    """Returns the columns of a table of candidates, which tell the engine if there are several."""
    several = _has_several_engines(rows)
    return [
        # The first column alone names a row where the terminal is too narrow for all.
        Column("candidate" if several else "scheme", lambda row: _name(row, several)),
        Column.number("ms", lambda row: row.median_ms, ".3f"),
        Column.number("kB", lambda row: scaled(row.size_bytes, 1e3), ",.0f"),
        Column.number("SQNR dB", lambda row: row.sqnr_db, ".1f"),
        Column("", lambda row: row.why_not or "chosen"),
    ]


def _has_several_engines(rows: Sequence[TriedScheme]) -> bool:
    return len({row.engine for row in rows}) > 1


def _name(row: TriedScheme, with_engine: bool) -> str:
    return f"{row.engine} {row.scheme}" if with_engine else row.scheme


def show_candidates(exported: Exported) -> None:
    """Prints the table; logs how to run the file where its format does not tell."""
    rows, chosen = exported.candidates, exported.chosen
    if rows:
        print_table(candidate_columns(rows), rows)
    if chosen is None:
        return
    format = exported.artifact.format
    of_format = (name for name, of in ENGINE_FORMATS.items() if of == format)
    options = [] if chosen.engine == next(of_format, "") else ["--engine", chosen.engine]
    if options or _has_several_engines(rows):
        path = str(exported.artifact.path)
        command = shlex.join(["cct-bench", format, path, *options])
        log.info("%s is the fastest: `%s` measures it", _name(chosen, True), command)
