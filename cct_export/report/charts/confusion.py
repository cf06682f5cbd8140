"""Which classes are taken for which."""

from typing import Any

from cct_export.records import Accuracy
from cct_export.report.charts.chart import INK, Chart, axis, figure, literal
from cct_export.report.columns import number

_MOST_NUMBERS = 12
_MOST_LABELS = {"x": 16, "y": 25}
# Mistakes are rare, and they are what one looks for: half of the colours are for them.
_SCALE = (0.0, 0.04, 0.15, 0.5, 1.0)


def confusion(name: str, accuracy: Accuracy) -> Chart | None:
    """Returns a heatmap of labels and predictions, None if there is no square matrix.

    Colours are shares of the images of a label, so that a rare class is seen as well.

    Args:
        name: of the result.
        accuracy: with or without a confusion matrix.
    """
    matrix = accuracy.confusion
    classes = len(matrix)
    if not classes or any(len(row) != classes for row in matrix):
        return None
    given = accuracy.labels if len(accuracy.labels) == classes else range(classes)
    labels = [str(label) for label in given]
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    height = 120 + min(max(26 * classes, 160), 480)
    worst = _worst(matrix, labels)
    return Chart(
        title=name,
        text=f"Confusion matrix of {name}: {accuracy.samples:,} images, {classes} classes.{worst}",
        figure=figure([_heatmap(matrix, shares, labels)], _layout(labels), height),
        height=height,
        header=("label", "images", "right", "most often taken for"),
        body=tuple(_class(index, matrix, labels, accuracy) for index in range(classes)),
        note=f"Rows are labels, columns what they are taken for: {accuracy.data}.{worst}",
    )


def _worst(matrix: tuple[tuple[int, ...], ...], labels: list[str]) -> str:
    mistakes = [
        (count, label, other)
        for i, (label, counts) in enumerate(zip(labels, matrix, strict=True))
        for j, (other, count) in enumerate(zip(labels, counts, strict=True))
        if i != j
    ]
    count, label, other = max(mistakes, key=lambda mistake: mistake[0], default=(0, "", ""))
    return f" Most often {label} is taken for {other}: {count:,} times." if count else ""


def _heatmap(
    matrix: tuple[tuple[int, ...], ...], shares: list[list[float]], labels: list[str]
) -> dict[str, Any]:
    hover = [
        [
            f"{literal(label)} taken for {literal(other)}: {count:,} ({share:.1%})"
            for other, count, share in zip(labels, counts, row, strict=True)
        ]
        for label, counts, row in zip(labels, matrix, shares, strict=True)
    ]
    gap = 1 if len(labels) <= _MOST_LABELS["y"] else 0
    trace = {
        "type": "heatmap",
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[share, f"var(--heat-{place})"] for place, share in enumerate(_SCALE)],
        "showscale": False,
        "xgap": gap,
        "ygap": gap,
        "hovertext": hover,
        "hoverinfo": "text",
    }
    if len(labels) <= _MOST_NUMBERS:
        trace["text"] = [[f"{count:,}" if count else "" for count in counts] for counts in matrix]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 11}
    return trace


def _layout(labels: list[str]) -> dict[str, Any]:
    return {
        "xaxis": axis(tickangle=-90, **_ticks(labels, _MOST_LABELS["x"])),
        "yaxis": axis(autorange="reversed", **_ticks(labels, _MOST_LABELS["y"])),
        "margin": {"r": 4},
    }


def _ticks(labels: list[str], most: int) -> dict[str, Any]:
    # Positions, not names: two classes may have the same.
    step = -(-len(labels) // most)
    return {
        "tickmode": "array",
        "tickvals": list(range(0, len(labels), step)),
        "ticktext": [literal(label, 18) for label in labels[::step]],
        "showgrid": False,
        "ticks": "",
        "tickfont": {"color": INK, "size": 11},
    }


def _class(
    index: int, matrix: tuple[tuple[int, ...], ...], labels: list[str], accuracy: Accuracy
) -> tuple[str, ...]:
    counts = matrix[index]
    wrong = [(count, other) for other, count in enumerate(counts) if other != index and count]
    count, other = max(wrong, default=(0, 0), key=lambda pair: pair[0])
    taken = f"{labels[other]} ({count:,})" if count else number(None, "d")
    return labels[index], f"{sum(counts):,}", number(accuracy.per_class[index], ".1%"), taken
