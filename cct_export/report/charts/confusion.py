"""Confusion matrices: which classes are mistaken for which."""

from collections.abc import Sequence

from cct_export.records import Accuracy
from cct_export.report.charts.chart import INK, Chart, axis, figure, literal
from cct_export.report.columns import NONE, number
from cct_export.specs import JSONObject

_MAX_NUMBERS = 12
_MAX_LABELS = {"x": 16, "y": 25}
# Errors are rare, and what one looks for: half of the colours are for them.
_SCALE = (0.0, 0.04, 0.15, 0.5, 1.0)

Matrix = tuple[tuple[int, ...], ...]


def confusion(name: str, accuracy: Accuracy) -> Chart | None:
    """Returns a heatmap of labels and predictions, None without a square matrix.

    Colours are proportions of the images of a label, so that a rare class is visible too.

    Args:
        name: of the result.
        accuracy: with or without a confusion matrix.
    """
    matrix = accuracy.confusion
    classes = len(matrix)
    if not classes or any(len(row) != classes for row in matrix):
        return None
    known = len(accuracy.labels) == classes
    labels = list(accuracy.labels) if known else list(map(str, range(classes)))
    height = 120 + min(max(26 * classes, 160), 480)
    worst = _worst(matrix, labels)
    return Chart(
        title=name,
        text=f"Confusion matrix of {name}: {accuracy.samples:,} images, {classes} classes.{worst}",
        figure=figure([_heatmap(matrix, labels)], _layout(labels), height),
        height=height,
        header=("label", "images", "correct", "most often mistaken for"),
        body=tuple(_class(index, labels, accuracy) for index in range(classes)),
        note=f"Rows are labels, columns are predictions: {accuracy.data}.{worst}",
    )


def _worst(matrix: Matrix, labels: Sequence[str]) -> str:
    """Returns a sentence about the most frequent error; nothing if there are none."""
    errors = [
        (count, label, prediction)
        for i, (label, counts) in enumerate(zip(labels, matrix, strict=True))
        for j, (prediction, count) in enumerate(zip(labels, counts, strict=True))
        if i != j
    ]
    count, label, prediction = max(errors, key=lambda error: error[0], default=(0, "", ""))
    return f" Most often {label} is mistaken for {prediction}: {count:,} times." if count else ""


def _heatmap(matrix: Matrix, labels: Sequence[str]) -> JSONObject:
    proportions = [[count / max(sum(row), 1) for count in row] for row in matrix]
    hover = [
        [
            f"{literal(label)} predicted as {literal(prediction)}: {count:,} ({proportion:.1%})"
            for prediction, count, proportion in zip(labels, counts, row, strict=True)
        ]
        for label, counts, row in zip(labels, matrix, proportions, strict=True)
    ]
    gap = 1 if len(labels) <= _MAX_LABELS["y"] else 0
    trace = {
        "type": "heatmap",
        "z": proportions,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[limit, f"var(--heat-{index})"] for index, limit in enumerate(_SCALE)],
        "showscale": False,
        "xgap": gap,
        "ygap": gap,
        "hovertext": hover,
        "hoverinfo": "text",
    }
    if len(labels) <= _MAX_NUMBERS:
        trace["text"] = [[f"{count:,}" if count else "" for count in counts] for counts in matrix]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 11}
    return trace


def _layout(labels: Sequence[str]) -> JSONObject:
    return {
        "xaxis": axis(tickangle=-90, **_ticks(labels, _MAX_LABELS["x"])),
        "yaxis": axis(autorange="reversed", **_ticks(labels, _MAX_LABELS["y"])),
        "margin": {"r": 4},
    }


def _ticks(labels: Sequence[str], maximum: int) -> JSONObject:
    # At positions, not at names: two classes may have the same.
    step = -(-len(labels) // maximum)
    return {
        "tickmode": "array",
        "tickvals": list(range(0, len(labels), step)),
        "ticktext": [literal(label, 18) for label in labels[::step]],
        "showgrid": False,
        "ticks": "",
        "tickfont": {"color": INK, "size": 11},
    }


def _class(index: int, labels: Sequence[str], accuracy: Accuracy) -> tuple[str, ...]:
    counts = accuracy.confusion[index]
    errors = [(count, other) for other, count in enumerate(counts) if other != index and count]
    count, other = max(errors, default=(0, 0), key=lambda error: error[0])
    mistaken = f"{labels[other]} ({count:,})" if count else NONE
    return labels[index], f"{sum(counts):,}", number(accuracy.per_class[index], ".1%"), mistaken
