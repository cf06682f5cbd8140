"""Where an artifact spends its time, operator by operator: as tables and as bars."""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from cct_export.records import OperatorProfile, OperatorTime
from cct_export.report import terminal
from cct_export.report.bars import draw
from cct_export.report.terminal import text

_NONE = "–"
# A picture stays readable; what is below is a sliver anyway.
MOST_BARS = 40


def slowest_first(profile: OperatorProfile) -> list[OperatorTime]:
    """Returns the operators by their time; the order in which they run decides between equals."""
    return sorted(profile.operators, key=lambda operator: -operator.ms)


def total_ms(operators: Iterable[OperatorTime]) -> float:
    """Returns the milliseconds of all operators; negative differences count as they are."""
    return sum(operator.ms for operator in operators)


def by_kind(profile: OperatorProfile) -> dict[str, list[OperatorTime]]:
    """Returns the operators of each kind, the kind that takes longest first."""
    kinds: dict[str, list[OperatorTime]] = {}
    for operator in profile.operators:
        kinds.setdefault(operator.kind, []).append(operator)
    return dict(sorted(kinds.items(), key=lambda item: -total_ms(item[1])))


def table(profile: OperatorProfile, title: str) -> None:
    """Prints a row per operator, the slowest first, then a row per kind, and what to know.

    Args:
        profile: of one artifact.
        title: above the table.
    """
    console = terminal.console()
    whole = total_ms(profile.operators)
    steps = _table(title, ("ms", "share", "kind", "operator", "where"))
    for operator in slowest_first(profile):
        figures = (f"{operator.ms:.4f}", _share(operator.ms, whole))
        steps.add_row(*figures, text(operator.kind), text(operator.name), text(operator.where))
    console.print(steps)
    console.print()
    kinds = _table("by kind", ("ms", "share", "kind", "operators"))
    for kind, operators in by_kind(profile).items():
        ms = total_ms(operators)
        kinds.add_row(f"{ms:.4f}", _share(ms, whole), text(kind), str(len(operators)))
    console.print(kinds)
    console.print()
    how = "derived, " if profile.derived else ""
    count = len(profile.operators)
    console.print(f"{whole:.4f} ms in {count} operators, {how}medians of {profile.runs} runs")
    if profile.note:
        console.print(text(profile.note))


def plot(profile: OperatorProfile, path: Path, title: str) -> None:
    """Draws a bar per operator, the slowest on top, ``MOST_BARS`` of them at most.

    Args:
        profile: of one artifact.
        path: a ``.png`` file.
        title: above the bars.

    Raises:
        MissingDependency: matplotlib is not installed.
        OutputError: ``path`` cannot be written.
    """
    rows = slowest_first(profile)
    whole, shown = total_ms(rows), rows[:MOST_BARS]
    left = f", without the {len(rows) - len(shown)} shortest" if len(shown) < len(rows) else ""
    draw(
        path,
        [f"{operator.name} ({operator.kind})" for operator in shown],
        [operator.ms for operator in shown],
        "derived ms (differences of medians)" if profile.derived else "ms (median)",
        f"{title}: {whole:.3f} ms in {len(rows)} operators{left}",
    )


def _share(ms: float, whole: float) -> str:
    return f"{ms / whole:.1%}" if whole > 0 else _NONE


def _table(title: str, columns: tuple[str, ...]) -> Table:
    found = Table(box=None, title=text(title), title_justify="left", pad_edge=False)
    for name in columns:
        right = name in ("ms", "share", "operators")
        found.add_column(name, justify="right" if right else "left", overflow="fold")
    return found
