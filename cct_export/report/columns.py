"""The columns of a table of results: what stands in a cell, and what it is sorted by."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cct_export.bench.statistics import Interval
from cct_export.report.rows import Row

NONE = "–"


class Column(NamedTuple):
    """One column.

    Attributes:
        title: its header.
        text: what stands in the cell of a row.
        key: the number that the rows are sorted by, None for a row without; None for a column
            of words, which are sorted by ``text``.
    """

    title: str
    text: Callable[[Row], str]
    key: Callable[[Row], float | None] | None = None


def columns(found: Sequence[Row]) -> list[Column]:
    """Returns the columns of a table of ``found``."""
    headlines = {row.headline for row in found}
    same = len(headlines) == 1
    latency = Column(
        f"p{headlines.pop()} ms" if same else "latency ms",
        _latency if same else lambda row: _latency(row, f"p{row.headline} "),
        lambda row: row.latency_ms,
    )
    peak = Column(
        "peak MB",
        lambda row: number(row.peak_megabytes, ",.0f"),
        lambda row: row.peak_megabytes,
    )
    devices = [Column("device", lambda row: row.device)]
    # What one compares comes first: a phone shows no more without scrolling.
    return [
        Column("artifact", lambda row: row.artifact),
        Column("scheme", lambda row: row.scheme),
        latency,
        Column("× first", _ratio, lambda row: None if row.ratio is None else row.ratio.value),
        Column(
            "top-1",
            lambda row: share(row.top1),
            lambda row: None if row.top1 is None else row.top1.value,
        ),
        Column("parity", lambda row: row.parity),
        Column("kB", lambda row: number(row.kilobytes, ",.0f"), lambda row: row.kilobytes),
        Column("images/s", lambda row: number(row.throughput, ",.0f"), lambda row: row.throughput),
        peak,
        Column("load ms", lambda row: number(row.load_ms, ",.1f"), lambda row: row.load_ms),
        Column("threads", lambda row: number(row.threads, "d"), lambda row: row.threads),
        Column("batch", lambda row: str(row.batch), lambda row: row.batch),
        Column("delegated", _delegated, lambda row: row.delegated),
        Column("engine", _engine),
        *(devices if len({row.device for row in found}) > 1 else []),
    ]


def number(value: float | None, pattern: str) -> str:
    """Returns ``value`` in the format ``pattern``, a dash for None."""
    return NONE if value is None else format(value, pattern)


def share(interval: Interval | None) -> str:
    """Returns a share with its bounds, in per cent, ``84.1% (83.4–84.8)``; a dash for None."""
    if interval is None:
        return NONE
    return f"{interval.value:.1%} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def milliseconds(value: float | None) -> str:
    """Returns ``value`` with four digits or so, a dash for None."""
    if value is None:
        return NONE
    return format(value, ",.3f" if value < 10 else ",.2f" if value < 100 else ",.1f")


def _engine(row: Row) -> str:
    return f"{row.engine}, {row.delegate}" if row.delegate else row.engine


def _latency(row: Row, prefix: str = "") -> str:
    return row.refused if row.latency_ms is None else prefix + milliseconds(row.latency_ms)


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "reference" if row.number == 1 and not row.refused else NONE
    return f"{row.ratio.value:.2f} ({row.ratio.low:.2f}–{row.ratio.high:.2f})"


def _delegated(row: Row) -> str:
    if row.delegated is None or row.nodes is None:
        return NONE
    return f"{row.delegated}/{row.nodes}"
