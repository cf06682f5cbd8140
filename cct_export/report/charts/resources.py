"""What a result takes: memory, and time by operator."""

from collections.abc import Sequence

from cct_export.records import OperatorProfile
from cct_export.report.charts.bars import Bar, bars
from cct_export.report.charts.chart import Chart
from cct_export.report.columns import milliseconds, number
from cct_export.report.rows import Row

# More bars than these nobody reads; the table below them has all operators.
_MOST_BARS = 12


def memory(found: Sequence[Row], names: Sequence[str]) -> Chart | None:
    """Returns a bar of peak memory per row, None if it is known of none."""
    known = [
        (name, row.peak_megabytes)
        for row, name in zip(found, names, strict=True)
        if row.peak_megabytes is not None
    ]
    if not known:
        return None
    drawn, height = bars([Bar(name, value, f"{value:,.0f} MB", "peak") for name, value in known])
    most = max(known, key=lambda pair: pair[1])
    return Chart(
        title="Peak memory",
        text=f"Peak memory of {len(known)} results; the most is {most[1]:,.0f} MB: {most[0]}.",
        figure=drawn,
        height=height,
        header=("result", "peak MB"),
        body=tuple((name, f"{value:,.1f}") for name, value in known),
        note="Largest resident memory of a process that did nothing else.",
    )


def operators(name: str, profile: OperatorProfile) -> Chart:
    """Returns a bar per operator, the slowest on top.

    Args:
        name: of the result.
        profile: with at least one operator.
    """
    ordered = sorted(profile.operators, key=lambda operator: -operator.ms)
    total = sum(operator.ms for operator in ordered)
    shown = [
        Bar(f"{one.kind} {one.name}", one.ms, _share(one.ms, total), one.where or "engine")
        for one in ordered[:_MOST_BARS]
    ]
    others = [one.ms for one in ordered[_MOST_BARS:]]
    if others:
        shown.append(Bar(f"{len(others)} others", sum(others), _share(sum(others), total), ""))
    drawn, height = bars(shown)
    slowest = ordered[0]
    notes = [
        f"{milliseconds(total)} ms in all, {profile.runs:,} runs.",
        "Derived: differences between prefixes of the graph, not times of the engine."
        if profile.derived
        else "",
        profile.note,
    ]
    return Chart(
        title=f"{name} (derived)" if profile.derived else name,
        text=f"Time of {len(ordered)} operators of {name}; the slowest is {slowest.kind} "
        f"{slowest.name}, {_share(slowest.ms, total)}.",
        figure=drawn,
        height=height,
        header=("operator", "name", "ms", "where"),
        body=tuple((one.kind, one.name, number(one.ms, ".4f"), one.where) for one in ordered),
        note=" ".join(note for note in notes if note),
    )


def _share(value: float, total: float) -> str:
    return f"{value:,.3f} ms" + (f" · {value / total:.0%}" if total > 0 else "")
