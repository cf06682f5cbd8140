"""Predictions on a terminal, and as rows of a table."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cct_export.records import Prediction
from cct_export.report.columns import Column
from cct_export.text import printable


def prediction_printer(images: int) -> Callable[[Prediction], None]:
    """Returns a function that prints a prediction on standard output.

    Make it before ``terminal.status`` begins, which takes over standard output, to print above its
    line: what goes into a file or a pipe must not pass through it.

    Args:
        images: how many there are. A single one gets a line per class, several a line per image.
    """
    stdout = None if sys.stdout.isatty() else sys.stdout

    def show(prediction: Prediction) -> None:
        name = printable(str(prediction.image))
        top = [(printable(label), probability) for label, probability in prediction.top]
        if images == 1:
            lines = [name, *(f"  {probability:6.1%}  {label}" for label, probability in top)]
        else:
            classes = ", ".join(f"{label} {probability:.1%}" for label, probability in top)
            lines = [f"{name}: {classes}"]
        print("\n".join(lines), file=stdout, flush=True)

    return show


@dataclass(frozen=True)
class PredictionRow:
    """A class that an image may show; the fields are the header of the CSV.

    Attributes:
        image: the file.
        rank: 1 for the best class.
        label: of the class.
        probability: 0 to 1.
    """

    image: str
    rank: int
    label: str
    probability: float


def prediction_rows(predictions: Sequence[Prediction]) -> list[PredictionRow]:
    """Returns a row per image and class."""
    return [
        PredictionRow(str(prediction.image), rank, label, probability)
        for prediction in predictions
        for rank, (label, probability) in enumerate(prediction.top, start=1)
    ]


def prediction_columns() -> list[Column[PredictionRow]]:
    """Returns the columns of a table of predictions."""
    return [
        Column("image", lambda row: row.image),
        Column.number("rank", lambda row: row.rank),
        Column("class", lambda row: row.label),
        Column.number("probability", lambda row: row.probability, ".1%"),
    ]
