"""Predictions on a terminal, and as rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from cct_export.records import Answer, Prediction
from cct_export.report.columns import Column
from cct_export.report.terminal import say


def show_prediction(prediction: Prediction, images: int) -> None:
    """Prints a prediction on standard output.

    Args:
        prediction: of one image.
        images: how many there are. A single one gets a line per class, several a line per image.
    """
    answers = _answers(prediction)
    if images > 1:
        say(f"{prediction.image}: {'; '.join(map(_line, answers))}")
        return
    say(str(prediction.image))
    for answer in answers:
        indent = "  "
        if answer.output:
            say(f"  {answer.output}")
            indent = "    "
        if answer.text:
            say(f"{indent}{answer.text}")
        for label, probability in answer.top:
            say(f"{indent}{probability:6.1%}  {label}")


def _answers(prediction: Prediction) -> tuple[Answer, ...]:
    """Returns the answers of all outputs; the only one has no name."""
    return prediction.answers or (Answer("", prediction.top, prediction.text),)


def _line(answer: Answer) -> str:
    scores = ", ".join(f"{label} {probability:.1%}" for label, probability in answer.top)
    text = f"{answer.text} ({scores})" if answer.text else scores
    return f"{answer.output}: {text}" if answer.output else text


@dataclass(frozen=True)
class PredictionRow:
    """A class that an image may show; the fields are the header of the CSV.

    Attributes:
        image: the file.
        rank: 1 for the best class; of an output with slots, the number of the slot.
        label: of the class.
        probability: 0 to 1.
        output: the output that gives it; empty if the model has no other.
    """

    image: str
    rank: int
    label: str
    probability: float
    output: str = ""


def prediction_rows(predictions: Sequence[Prediction]) -> list[PredictionRow]:
    """Returns a row per image, output and class."""
    return [
        PredictionRow(str(prediction.image), rank, label, probability, answer.output)
        for prediction in predictions
        for answer in _answers(prediction)
        for rank, (label, probability) in enumerate(answer.top, start=1)
    ]


def prediction_columns() -> list[Column[PredictionRow]]:
    """Returns the columns of a table of predictions."""
    return [
        Column("image", lambda row: row.image),
        Column("output", lambda row: row.output),
        Column.number("rank", lambda row: row.rank),
        Column("class", lambda row: row.label),
        Column.number("probability", lambda row: row.probability, ".1%"),
    ]
