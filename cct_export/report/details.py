"""What the page says of results one by one: the best ones, and all facts of each."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cct_export.records import BenchResult
from cct_export.records.encoding import to_json
from cct_export.report import markup
from cct_export.report.columns import milliseconds, share
from cct_export.report.rows import Row


class _Tile(NamedTuple):
    """What a result can be best in.

    Attributes:
        title: of it.
        rank: less is better, None does not take part.
        said: the figure.
        more: what to know of the best row, given the others.
    """

    title: str
    rank: Callable[[Row], float | None]
    said: Callable[[Row], str]
    more: Callable[[Row, Sequence[Row]], str]


def _ratio(row: Row, _: Sequence[Row]) -> str:
    return "" if row.ratio is None else f"{row.ratio.value:.2f} of the first result"


def _part(row: Row, others: Sequence[Row]) -> str:
    first = [other.kilobytes for other in others if other.number == 1]
    if row.kilobytes is None or not first or not first[0]:
        return ""
    return f"{row.kilobytes / first[0]:.2f} of the first result"


def _close(row: Row, others: Sequence[Row]) -> str:
    """Returns how many of the others may be as accurate."""
    bound = row.top1.low if row.top1 else 0.0
    count = sum(other.top1 is not None and other.top1.value >= bound for other in others)
    return f"{count} more within its interval" if count else ""


_TILES = (
    _Tile(
        "Fastest",
        lambda row: row.latency_ms,
        lambda row: f"{milliseconds(row.latency_ms)} ms",
        _ratio,
    ),
    _Tile(
        "Most accurate",
        lambda row: None if row.top1 is None else -row.top1.value,
        lambda row: share(row.top1),
        _close,
    ),
    _Tile(
        "Smallest",
        lambda row: row.kilobytes,
        lambda row: f"{row.kilobytes:,.0f} kB",
        _part,
    ),
)


def best(found: Sequence[Row], names: Sequence[str]) -> str:
    """Returns the fastest, the most accurate and the smallest of what was not refused.

    Nothing where there is nothing to choose from.
    """
    counted = [(row, name) for row, name in zip(found, names, strict=True) if not row.refused]
    if len(counted) < 2:
        return ""
    lines = []
    for tile in _TILES:
        ranked = [
            (rank, row, name) for row, name in counted if (rank := tile.rank(row)) is not None
        ]
        if ranked:
            _, row, name = min(ranked, key=lambda one: one[0])
            more = tile.more(row, [other for other, _ in counted if other is not row])
            lines.append(
                f"<div><dt>{tile.title}</dt><dd><strong>{markup.text(tile.said(row))}</strong>"
                f"<span>{markup.text(name)}</span><small>{markup.text(more)}</small></dd></div>"
            )
    return f'<dl class="best">{"".join(lines)}</dl>'


def details(row: Row, name: str, result: BenchResult) -> str:
    """Returns why a result was refused, its warnings, and all that is known of it."""
    failures = result.parity.failures if result.parity else ()
    table = markup.facts(_facts(result), f"Facts of {name}")
    return (
        f"<article>\n<h3>{markup.text(name)}</h3>\n"
        f"{markup.paragraph(row.refused, 'bad')}{markup.items(failures, 'bad')}"
        f"{markup.items(result.warnings, 'warnings')}"
        f"<details><summary>Facts and conditions</summary>{table}</details>\n</article>"
    )


def _facts(result: BenchResult) -> dict[str, Any]:
    shown = {
        "file": to_json(result.artifact),
        "runtime": to_json(result.runtime),
        "device": result.device,
        "runs": len(result.times_ns) or (result.reported_ms.count if result.reported_ms else 0),
        "reported by the tool, ms": to_json(result.reported_ms),
        "repeats": len(result.bursts) or None,
        "first inference, ms": result.first_inference_ms,
        "preprocessing, ms": result.preprocess_ms,
        "postprocessing, ms": result.postprocess_ms,
        "conditions": to_json(result.conditions),
        "parity": _parity(result),
        "accuracy": _accuracy(result),
    }
    return {key: value for key, value in shown.items() if value not in (None, {})}


def _parity(result: BenchResult) -> dict[str, Any]:
    """Returns the report without what stands elsewhere."""
    if result.parity is None:
        return {}
    elsewhere = ("failures", "candidate", "scheme")
    found = result.parity.to_dict()
    return {key: value for key, value in found.items() if key not in elsewhere}


def _accuracy(result: BenchResult) -> dict[str, Any]:
    found = result.accuracy
    if found is None:
        return {}
    return {
        "data": found.data,
        "images": found.samples,
        "top-1": f"{found.top1:.2%}, 95 % within {_bounds(found.top1_interval)}",
        "top-5": f"{found.top5:.2%}, 95 % within {_bounds(found.top5_interval)}",
        "expected calibration error": found.calibration_error,
        **({"against the model": found.paired} if found.paired else {}),
    }


def _bounds(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2%} to {interval[1]:.2%}"
