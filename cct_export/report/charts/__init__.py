"""Charts of results: SVG drawings, each with a text and a table of its figures."""

from collections.abc import Iterable, Sequence

from cct_export.records import BenchResult
from cct_export.report.charts.bars import memory, operators
from cct_export.report.charts.chart import Chart
from cct_export.report.charts.confusion import confusion
from cct_export.report.charts.latency import histogram
from cct_export.report.charts.pareto import scatters
from cct_export.report.charts.sustained import sustained
from cct_export.report.rows import Row


def charts(
    rows: Sequence[Row], names: Sequence[str], results: Sequence[BenchResult]
) -> dict[str, list[Chart]]:
    """Returns the charts by section, in the order of the page; no section without a chart.

    A result whose latency was refused has no chart of times, neither by operator nor over time.

    Args:
        rows: of the results.
        names: of the rows, each different.
        results: in the same order.
    """
    engines = list(dict.fromkeys(row.engine for row in rows))
    every = list(zip(rows, names, results, strict=True))
    timed = [(row, name, result) for row, name, result in every if not row.refused]
    sections = {
        "Trade-offs": scatters(rows, names),
        "Latency": [
            histogram(name, result, engines.index(row.engine))
            for row, name, result in timed
            if result.times_ns
        ],
        "Memory": _present([memory(rows, names)]),
        "Operators": [
            operators(name, result.operators)
            for _, name, result in timed
            if result.operators and result.operators.operators
        ],
        "Sustained load": [
            sustained(name, result.sustained)
            for _, name, result in timed
            if result.sustained and result.sustained.p50_ms
        ],
        "Confusion": _present(
            confusion(name, result.accuracy) for _, name, result in every if result.accuracy
        ),
    }
    return {title: group for title, group in sections.items() if group}


def _present(charts: Iterable[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
