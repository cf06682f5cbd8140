"""Horizontal bars as a picture."""

from collections.abc import Sequence
from pathlib import Path

from cct_export.errors import MissingDependency
from cct_export.files import replacing
from cct_export.report.terminal import printable


def draw(
    path: Path, labels: Sequence[str], lengths: Sequence[float], axis: str, title: str
) -> None:
    """Draws a bar per label, the first on top.

    Args:
        path: a ``.png`` file.
        labels: one of each bar; the same may come twice.
        lengths: of the bars, any sign.
        axis: what the lengths are, with their unit.
        title: above the bars.

    Raises:
        MissingDependency: matplotlib is not installed.
        OutputError: ``path`` cannot be written.
    """
    try:
        # Figure instead of pyplot: no global state, no display.
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency.of("matplotlib", "tensorflow") from None

    figure = Figure(figsize=(8, 1.2 + 0.22 * len(labels)), layout="constrained")
    axes = figure.subplots()
    places = range(len(labels))
    axes.barh(places, lengths, color="#4878a8")
    # Names may come from anyone: a dollar sign in them is no formula.
    axes.set_yticks(places, [printable(label) for label in labels], parse_math=False)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.tick_params(labelsize=7)
    axes.set_xlabel(axis)
    axes.set_title(printable(title), fontsize=10, parse_math=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
