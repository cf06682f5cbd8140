"""What a model sees in an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cct_export.specs import JSONObject

# Classes with their probabilities.
Scores = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Answer:
    """What one of several outputs says about an image.

    Attributes:
        output: name of the output.
        top: classes with their probabilities, 0 to 1, best first. With slots, the best class of
            each slot, in their order. Where each class is a question of its own, its probability
            does not depend on the others'.
        text: the classes of the slots in a row, such as a number plate; empty without slots.
    """

    output: str
    top: Scores
    text: str = ""

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types."""
        return {"output": self.output, **_fields(self.top, self.text)}


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image.

    Attributes:
        image: the file.
        top: classes with their probabilities, best first; of the first output, see ``Answer``.
        text: the classes of its slots in a row; empty without slots.
        answers: of each output, where the model has several.
    """

    image: Path
    top: Scores
    text: str = ""
    answers: tuple[Answer, ...] = ()

    @classmethod
    def of(cls, image: Path, answers: tuple[Answer, ...]) -> "Prediction":
        """Returns the prediction that consists of the answers of all outputs."""
        first = answers[0]
        return cls(image, first.top, first.text, answers if len(answers) > 1 else ())

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types, with ``text`` and ``answers`` where there are any."""
        fields = {"image": str(self.image), **_fields(self.top, self.text)}
        if self.answers:
            fields["answers"] = [answer.to_dict() for answer in self.answers]
        return fields


def _fields(top: Scores, text: str) -> dict[str, Any]:
    scores = [{"label": label, "probability": probability} for label, probability in top]
    return {"top": scores, **({"text": text} if text else {})}
