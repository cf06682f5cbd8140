"""Predictions on a terminal, and as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from cct_export.records import Prediction
from cct_export.report.columns import Column
from cct_export.report.terminal import say


def show_prediction(prediction: Prediction, images: int) -> None:
    """Prints a prediction on standard output.

    Args:
        prediction: of one image.
        images: how many there are. A single one gets a line per class, several a line per image.
    """
    if images > 1:
        classes = ", ".join(f"{label} {probability:.1%}" for label, probability in prediction.top)
        say(f"{prediction.image}: {classes}")
        return
    say(str(prediction.image))
    for label, probability in prediction.top:
        say(f"  {probability:6.1%}  {label}")


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
