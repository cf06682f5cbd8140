"""Bar plots as PNG files."""

from collections.abc import Sequence
from pathlib import Path

from cct_export.errors import MissingDependency
from cct_export.files import replacing
from cct_export.text import printable


def bars(
    path: Path, labels: Sequence[str], lengths: Sequence[float], axis: str, title: str
) -> None:
    """Draws horizontal bars, the first on top.

    Args:
        path: the ``.png`` file to write.
        labels: of the bars, which need not differ.
        lengths: of the bars, any sign.
        axis: label of the axis, with the unit of the lengths.
        title: of the plot.

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
    positions = range(len(labels))
    axes.barh(positions, lengths, color="#4878a8")
    # A dollar sign in a name begins no formula.
    axes.set_yticks(positions, [printable(label) for label in labels], parse_math=False)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.tick_params(labelsize=7)
    axes.set_xlabel(axis)
    # Over labels and bars: over the bars alone, long labels leave no room for it.
    figure.suptitle(printable(title), fontsize=10, parse_math=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
