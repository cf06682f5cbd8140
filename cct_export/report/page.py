"""The HTML page that compares results; it loads nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from cct_export.records import Accuracy, BenchResult, MachineInfo
from cct_export.records.encoding import to_builtins
from cct_export.report.charts import charts
from cct_export.report.columns import milliseconds, percentage
from cct_export.report.rows import Row, columns, labels, rows
from cct_export.specs import JSONObject
from cct_export.text import one_line, plural

if TYPE_CHECKING:
    from jinja2 import Template

# Sections whose charts take the whole width.
WIDE_SECTIONS = ("Trade-offs", "Memory", "Sustained load")
# Levels of nesting that a table of facts resolves.
_MAX_DEPTH = 3

Facts = list[tuple[str, str]]


def page(machine: MachineInfo, results: Sequence[BenchResult]) -> str:
    """Returns a page that compares ``results``; the same page for the same input.

    Charts, style and script are in it, and a content security policy forbids it to load or run
    anything else. Strings of the results are escaped: they may come from anyone.

    Args:
        machine: where it was measured.
        results: ratios are to the first.
    """
    table = rows(results)
    names = labels(table)
    style, script = _resource("page.css"), _resource("page.js")
    return _template().render(
        title=f"cct-bench: {plural(len(table), 'result')}",
        policy=_policy(style, script),
        style=style,
        lead=_lead(machine, results),
        tiles=_tiles(table, names),
        columns=columns(table),
        rows=table,
        notes=_notes(results, table),
        sections=charts(table, names, results),
        wide_sections=WIDE_SECTIONS,
        details=[_details(*item) for item in zip(table, names, results, strict=True)],
        machine=_facts(to_builtins(machine)),
        script=script,
    )


def _resource(name: str) -> str:
    return resources.files("cct_export.report").joinpath("templates", name).read_text("utf-8")


def _template() -> "Template":
    """Returns the template; every string that it shows is put on one line and escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cct_export.report"),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else one_line(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _policy(style: str, script: str) -> str:
    """Returns a content security policy: only ``style`` and ``script`` apply, nothing is loaded."""
    return (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    """Returns what stands in a policy for an element with this ``text``."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _lead(machine: MachineInfo, results: Sequence[BenchResult]) -> str:
    """Returns where it was measured."""
    cores = plural(machine.cores, "core") if machine.cores else ""
    devices = sorted({result.device for result in results} - {"local"})
    return ", ".join(filter(None, (machine.cpu, cores, machine.os, *devices)))


def _notes(results: Sequence[BenchResult], table: Sequence[Row]) -> list[str]:
    """Returns how to read the table of results."""
    notes = []
    if any(row.ratio for row in table):
        notes.append(
            "× first is the latency over that of the first result, with the 95 % interval of a "
            "bootstrap over repeats and bursts; top-1 has a 95 % Wilson interval."
        )
    if table and table[0].refused:
        notes.append("There are no ratios: the first result has no latency.")
    warned = sum(bool(result.warnings) for result in results)
    if warned:
        notes.append(
            f"{warned} of {plural(len(table), 'result')} {'has' if warned == 1 else 'have'} "
            "warnings: see each result."
        )
    if any(row.refused for row in table):
        notes.append("A latency is refused where the file failed parity with its model.")
    return notes


class Tile(NamedTuple):
    """A result that is the best in something: what, its value, its name and a note."""

    title: str
    value: str
    name: str
    note: str


@dataclass(frozen=True)
class _Contest:
    """Something that a result can be the best in.

    Attributes:
        title: of the tile.
        rank: the least wins; None does not take part.
        value: text of the value.
        note: about the winner among all rows.
    """

    title: str
    rank: Callable[[Row], float | None]
    value: Callable[[Row], str]
    note: Callable[[Row, Sequence[Row]], str]


def _latency_ratio(row: Row, rows: Sequence[Row]) -> str:
    return f"{row.ratio.value:.2f} of the first result" if row.ratio else ""


def _size_ratio(row: Row, rows: Sequence[Row]) -> str:
    first = next((other.kilobytes for other in rows if other.number == 1), None)
    if row.number == 1 or row.kilobytes is None or not first:
        return ""
    return f"{row.kilobytes / first:.2f} of the first result"


def _equally_accurate(row: Row, rows: Sequence[Row]) -> str:
    low = row.top1.low if row.top1 else 0.0
    others = sum(
        other.top1 is not None and other.top1.value >= low for other in rows if other is not row
    )
    return f"{others} more within its interval" if others else ""


_CONTESTS = (
    _Contest(
        "Fastest",
        lambda row: row.latency_ms,
        lambda row: f"{milliseconds(row.latency_ms)} ms",
        _latency_ratio,
    ),
    _Contest(
        "Most accurate",
        lambda row: None if row.top1 is None else -row.top1.value,
        lambda row: percentage(row.top1),
        _equally_accurate,
    ),
    _Contest(
        "Smallest", lambda row: row.kilobytes, lambda row: f"{row.kilobytes:,.0f} kB", _size_ratio
    ),
)


def _tiles(table: Sequence[Row], names: Sequence[str]) -> list[Tile]:
    """Returns the fastest, the most accurate and the smallest result that was not refused.

    None where there is no choice.
    """
    names_of = {row.number: name for row, name in zip(table, names, strict=True)}
    candidates = [row for row in table if not row.refused]
    tiles = []
    for contest in _CONTESTS if len(candidates) > 1 else ():
        ranked = [(rank, row) for row in candidates if (rank := contest.rank(row)) is not None]
        if ranked:
            _, best = min(ranked, key=lambda pair: pair[0])
            note = contest.note(best, candidates)
            tiles.append(Tile(contest.title, contest.value(best), names_of[best.number], note))
    return tiles


class _Details(NamedTuple):
    """All facts of one result."""

    name: str
    refused: str
    failures: Sequence[str]
    warnings: Sequence[str]
    facts: Facts


def _details(row: Row, name: str, result: BenchResult) -> _Details:
    failures = result.parity.failures if result.parity else ()
    reported = result.reported_ms
    parity = {} if result.parity is None else to_builtins(result.parity)
    facts = {
        "file": to_builtins(result.artifact),
        "runtime": to_builtins(result.runtime),
        "device": result.device,
        "runs": len(result.times_ns) or (reported.count if reported else 0),
        "reported by the tool, ms": to_builtins(reported),
        "repeats": len(result.bursts) or None,
        "first inference, ms": result.first_inference_ms,
        "preprocessing, ms": result.preprocess_ms,
        "postprocessing, ms": result.postprocess_ms,
        "conditions": to_builtins(result.conditions),
        # The rest is shown elsewhere.
        "parity": {
            name: value
            for name, value in parity.items()
            if name not in ("failures", "candidate", "scheme")
        },
        "accuracy": _accuracy(result.accuracy),
    }
    return _Details(name, row.refused, failures, result.warnings, _facts(facts))


def _accuracy(accuracy: Accuracy | None) -> JSONObject:
    if accuracy is None:
        return {}
    return {
        "data": accuracy.data,
        "images": accuracy.samples,
        "top-1": _share(accuracy.top1, accuracy.top1_interval),
        "top-5": _share(accuracy.top5, accuracy.top5_interval),
        "expected calibration error": accuracy.calibration_error,
        "against the model": to_builtins(accuracy.paired),
    }


def _share(share: float | None, interval: tuple[float, float] | None) -> str:
    if share is None or interval is None:
        return ""
    return f"{share:.2%}, 95 % interval {interval[0]:.2%} to {interval[1]:.2%}"


def _facts(values: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Facts:
    """Returns names and values as text; what is in a mapping gets a line each."""
    facts: Facts = []
    for name, value in values.items():
        title = f"{prefix}{str(name).replace('_', ' ')}"
        if value is None or value in ("", {}, [], ()):
            continue
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            facts += _facts(value, f"{title}: ", depth + 1)
        else:
            facts.append((title, _text(value)))
    return facts


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
