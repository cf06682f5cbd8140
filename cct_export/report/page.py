"""Results on one HTML page that needs nothing but itself."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from math import isfinite
from string import Template
from typing import Any

from cct_export.errors import MissingDependency
from cct_export.records import BenchResult
from cct_export.report import markup
from cct_export.report.charts.chart import Chart
from cct_export.report.charts.confusion import confusion
from cct_export.report.charts.latency import histogram, sustained
from cct_export.report.charts.pareto import scatters
from cct_export.report.charts.resources import memory, operators
from cct_export.report.columns import columns
from cct_export.report.details import best, details
from cct_export.report.rows import Row, labels, rows


def page(machine: Mapping[str, Any], results: Sequence[BenchResult]) -> str:
    """Returns a page that compares ``results``; the same page for the same input.

    It loads nothing: plotly.js, style and data are in it, and a content security policy keeps it
    so. Strings of the results are taken for hostile.

    Args:
        machine: facts about where it was measured, JSON types.
        results: the first is what the others are compared with.

    Raises:
        MissingDependency: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingDependency.of("plotly", "report") from None

    found = rows(results)
    names = labels(found)
    grouped = _charts(found, names, results)
    data = json.dumps(
        _finite([one.figure for group in grouped.values() for one in group]),
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    library, script = get_plotlyjs(), _resource("page.js")
    title = f"cct-bench: {len(found)} {'result' if len(found) == 1 else 'results'}"
    return Template(_resource("page.html")).substitute(
        title=markup.text(title),
        policy=_policy(library, script),
        style=_resource("page.css"),
        lead=markup.paragraph(_lead(machine, results), "lead"),
        best=best(found, names),
        body="\n".join(_sections(machine, results, found, names, grouped)),
        # A "<" could end the element that it stands in.
        data=data.replace("<", "\\u003c"),
        library=library,
        script=script,
    )


def _resource(name: str) -> str:
    return resources.files("cct_export.report").joinpath(name).read_text("utf-8")


def _policy(*scripts: str) -> str:
    """Returns a policy by which only ``scripts`` run, and nothing is fetched."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _finite(value: Any) -> Any:
    """Returns ``value`` with null for the floats that JSON does not have."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _charts(
    found: Sequence[Row], names: Sequence[str], results: Sequence[BenchResult]
) -> dict[str, list[Chart]]:
    """Returns the charts by section, in the order of the page.

    What was refused has no latency, by operator or over time neither.
    """
    every = list(zip(found, names, results, strict=True))
    counted = [(name, result) for row, name, result in every if not row.refused]
    engines = list(dict.fromkeys(row.engine for row in found))
    series = {row.number: engines.index(row.engine) for row in found}
    return {
        "Trade-offs": scatters(found, names),
        "Latency": [
            histogram(name, result, series[row.number])
            for row, name, result in every
            if not row.refused and result.times_ns
        ],
        "Memory": _present([memory(found, names)]),
        "Operators": [
            operators(name, result.operators)
            for name, result in counted
            if result.operators and result.operators.operators
        ],
        "Sustained load": [
            sustained(name, result.sustained)
            for name, result in counted
            if result.sustained and result.sustained.p50_ms
        ],
        "Confusion": _present(
            confusion(name, result.accuracy) for _, name, result in every if result.accuracy
        ),
    }


def _present(charts: Iterable[Chart | None]) -> list[Chart]:
    return [one for one in charts if one is not None]


def _lead(machine: Mapping[str, Any], results: Sequence[BenchResult]) -> str:
    """Returns where it was measured, in a line."""
    cores = machine.get("cores")
    where = [machine.get("cpu"), f"{cores} cores" if cores else None, machine.get("os")]
    devices = sorted({result.device for result in results} - {"local"})
    return ", ".join([str(part) for part in (*where, *devices) if part])


def _sections(
    machine: Mapping[str, Any],
    results: Sequence[BenchResult],
    found: Sequence[Row],
    names: Sequence[str],
    grouped: Mapping[str, Sequence[Chart]],
) -> list[str]:
    parts = [
        markup.section(
            "Results",
            markup.sortable(columns(found), found, "Results; a header sorts by its column"),
            *_reading(results, found),
        )
    ]
    index = 0
    for title, group in grouped.items():
        places = [markup.chart(one, index + place) for place, one in enumerate(group)]
        index += len(group)
        inner = "\n".join(places)
        wide = " wide" if title in ("Trade-offs", "Memory", "Sustained load") else ""
        parts.append(
            markup.section(title, f'<div class="charts{wide}">{inner}</div>' if inner else "")
        )
    each = [details(*one) for one in zip(found, names, results, strict=True)]
    parts.append(markup.section("Each result", *each))
    parts.append(markup.section("Machine", markup.facts(machine, "Where it was measured")))
    return [part for part in parts if part]


def _reading(results: Sequence[BenchResult], found: Sequence[Row]) -> list[str]:
    """Returns what to know before believing the table."""
    notes = [
        "× first is the latency over that of the first result, with the interval of a bootstrap "
        "over repeats and bursts that holds at 95 %; top-1 with Wilson's."
        if any(row.ratio for row in found)
        else ""
    ]
    if found and found[0].refused:
        notes.append("There are no ratios: the first result has no latency.")
    warned = sum(bool(result.warnings) for result in results)
    if warned:
        notes.append(f"{warned} of {len(found)} results have warnings: see each result.")
    if any(row.refused for row in found):
        notes.append("A latency is refused where the file does not compute what its model does.")
    return [markup.paragraph(note) for note in notes if note]
