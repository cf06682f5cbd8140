"""Confusion matrices: which classes are mistaken for which."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from cct_export.records import Accuracy
from cct_export.report.charts.chart import Chart, shortened
from cct_export.report.charts.svg import drawing, element, percent, text_width, tooltip
from cct_export.report.columns import NONE
from cct_export.text import plural

_MAX_LABELS = {"x": 16, "y": 25}
_LABEL_LENGTH = 14
# Digits of a row of numbers that fit on a phone.
_MAX_DIGITS = 48
# What keeps a page of many classes small: cells with a tooltip, errors at all, rows of the table.
_MAX_TOOLTIPS, _MAX_ERRORS, _MAX_ROWS = 150, 2000, 100
# Errors are rare, and what one looks for: half of the shades are for them.
_PROPORTIONS = (0.0, 0.04, 0.15, 0.5, 1.0)
_SHADES = 8
# From this shade on, numbers are bright.
_DARK = 5


def confusion(name: str, accuracy: Accuracy) -> Chart | None:
    """Returns a heatmap of labels and predictions, None without a square matrix.

    Colours are proportions of the images of a label, so that a rare class is visible too.

    Args:
        name: of the result.
        accuracy: with or without a confusion matrix.
    """
    classes = len(accuracy.confusion)
    if not classes or any(len(row) != classes for row in accuracy.confusion):
        return None
    matrix = np.array(accuracy.confusion, np.int64)
    known = len(accuracy.labels) == classes
    labels = list(accuracy.labels) if known else list(map(str, range(classes)))
    worst = _worst(matrix, labels)
    rows = _rows(matrix, labels)
    least = f" The figures are of the {len(rows)} least accurate classes."
    return Chart(
        title=name,
        text=f"Confusion matrix of {name}: {plural(accuracy.samples, 'image')}, "
        f"{plural(classes, 'class', 'classes')}.{worst}",
        drawing=_drawing(matrix, labels),
        header=("label", "images", "correct", "most often mistaken for"),
        body=rows,
        note=f"Rows are labels, columns are predictions: {accuracy.data}.{worst}"
        f"{least if len(rows) < classes else ''}",
    )


def _errors(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix without the images that were classified correctly."""
    return np.where(np.eye(len(matrix), dtype=bool), 0, matrix)


def _worst(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """Returns a sentence about the most frequent error; nothing if there are none."""
    errors = _errors(matrix)
    label, prediction = divmod(int(errors.argmax()), len(matrix))
    times = int(errors[label, prediction])
    if not times:
        return ""
    return (
        f" Most often {labels[label]} is mistaken for {labels[prediction]}: "
        f"{plural(times, 'time')}."
    )


def _rows(matrix: np.ndarray, labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Returns a row per class; of many classes those with the lowest accuracy."""
    images, errors = matrix.sum(axis=1), _errors(matrix)
    correct = np.diag(matrix) / np.maximum(images, 1)
    shown = np.sort(np.argsort(np.where(images, correct, 1.0), kind="stable")[:_MAX_ROWS])
    rows = []
    for index in map(int, shown):
        other = int(errors[index].argmax())
        mistakes = int(errors[index, other])
        rows.append((
            labels[index],
            f"{int(images[index]):,}",
            f"{correct[index]:.1%}" if images[index] else NONE,
            f"{labels[other]} ({mistakes:,})" if mistakes else NONE,
        ))  # fmt: skip
    return tuple(rows)


def _drawing(matrix: np.ndarray, labels: Sequence[str]) -> str:
    size = min(max(26 * len(labels), 160), 480)
    # One unit a cell, in both directions, at any width.
    view = f"0 0 {len(labels)} {len(labels)}"
    cells = element(
        "svg", *_cells(matrix, labels), viewBox=view, preserveAspectRatio="none", height=size,
        class_="cells" if len(labels) <= _MAX_LABELS["y"] else "cells dense",
    )  # fmt: skip
    return drawing(
        cells,
        *_numbers(matrix, size / len(labels)),
        *_ticks(labels, size),
        # Names of columns are turned.
        height=size + 16 + max(text_width(shortened(label, _LABEL_LENGTH)) for label in labels),
        layout="matrix",
    )


def _shades(matrix: np.ndarray) -> np.ndarray:
    """Returns the shade of each cell, from 0 to ``_SHADES``, for its share of the label."""
    proportions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    steps = np.linspace(0, _SHADES, len(_PROPORTIONS))
    shades: np.ndarray = np.rint(np.interp(proportions, _PROPORTIONS, steps)).astype(int)
    return shades


def _cells(matrix: np.ndarray, labels: Sequence[str]) -> list[Element]:
    """Returns the background, and by shade the cells with images: frequent errors with tooltips.

    The others of a shade are one path: an element each would be most of the page.
    """
    shades, images = _shades(matrix), matrix.sum(axis=1)
    frequent = np.argsort(-_errors(matrix), axis=None, kind="stable")[:_MAX_ERRORS]
    cells = [divmod(int(cell), len(labels)) for cell in frequent]
    cells = [(row, column) for row, column in cells if row != column and matrix[row, column]]
    cells += [(index, index) for index in range(len(labels)) if matrix[index, index]]
    groups: dict[int, list[Element]] = {}
    paths: dict[int, list[str]] = {}
    for rank, (row, column) in enumerate(cells):
        count, shade = int(matrix[row, column]), int(shades[row, column])
        if rank < _MAX_TOOLTIPS:
            text = (
                f"{shortened(labels[row])} predicted as {shortened(labels[column])}: "
                f"{count:,} ({count / images[row]:.1%})"
            )
            made = element("rect", tooltip(text), x=column, y=row, width=1, height=1)
            groups.setdefault(shade, []).append(made)
        elif shade:
            paths.setdefault(shade, []).append(f"M{column} {row}.5h1")
    for shade, commands in paths.items():
        groups.setdefault(shade, []).append(element("path", d="".join(commands)))
    background = element("rect", class_="background", width=len(labels), height=len(labels))
    return [
        background,
        *(
            element("g", *members, opacity=shade / _SHADES)
            for shade, members in sorted(groups.items())
        ),
    ]


def _numbers(matrix: np.ndarray, height: float) -> list[Element]:
    """Returns the number of images in each cell, if they fit into ``height`` pixels a row."""
    classes = len(matrix)
    if classes * len(str(matrix.max())) > _MAX_DIGITS:
        return []
    shades = _shades(matrix)
    return [
        element(
            "text",
            x=percent((column + 0.5) / classes),
            y=(row + 0.5) * height + 4,
            class_="count bright" if shades[row, column] >= _DARK else "count",
            text=str(matrix[row, column]),
        )
        for row, column in np.argwhere(matrix)
    ]


def _ticks(labels: Sequence[str], size: float) -> list[Element]:
    """Returns names of classes left of the matrix and below it; of many classes some."""
    classes, ticks = len(labels), []
    for index in range(0, classes, -(-classes // _MAX_LABELS["y"])):
        y = (index + 0.5) * size / classes + 4
        text = shortened(labels[index], _LABEL_LENGTH)
        ticks.append(element("text", x=-8, y=y, class_="end label", text=text))
    for index in range(0, classes, -(-classes // _MAX_LABELS["x"])):
        # A drawing of its own turns around its own origin, wherever that is.
        text = shortened(labels[index], _LABEL_LENGTH)
        turned = element("text", x=-8, y=4, class_="end label", transform="rotate(-90)", text=text)
        ticks.append(element("svg", turned, x=percent((index + 0.5) / classes), y=size))
    return ticks
