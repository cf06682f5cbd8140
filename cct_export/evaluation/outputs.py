"""What the values of a model's outputs mean: classes, probabilities and decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cct_export.errors import InvalidArtifact
from cct_export.graph.interpret import softmax
from cct_export.records import OutputContract
from cct_export.records.output import Activation
from cct_export.runtimes.session import Logits

# A logit above it, or a probability, is a yes.
_LOGIT_THRESHOLD, _PROBABILITY_THRESHOLD = 0.0, 0.5


def cut(
    logits: Logits, outputs: Sequence[OutputContract]
) -> Iterator[tuple[OutputContract, Logits]]:
    """Yields every output with its part of the logits, float32 ``(N, width)``.

    Args:
        logits: float32 ``(N, values of all outputs)``, see ``runtimes.session``.
        outputs: what they are of; the size of a single one may be unknown.

    Raises:
        InvalidArtifact: the outputs have another number of values.
    """
    width = logits.shape[1]
    if len(outputs) == 1 and not outputs[0].width:
        outputs = [replace(outputs[0], classes=width, shape=(width,))]
    total = sum(output.width for output in outputs)
    if total != width:
        raise InvalidArtifact(
            f"the file gives {width} values for an image, and its outputs have {total}: export it "
            "again"
        )
    start = 0
    for output in outputs:
        yield output, logits[:, start : start + output.width]
        start += output.width


def is_guessed(outputs: Sequence[OutputContract]) -> bool:
    """Returns whether an output may hold logits or probabilities, which its values then decide."""
    return any(not output.activation for output in outputs)


def activation_of(values: np.ndarray, output: OutputContract) -> Activation:
    """Returns what an output without slots holds; if it does not say, what its values tell.

    Args:
        values: float ``(N, classes)``.
        output: what they are.
    """
    if output.activation:
        return output.activation
    given = np.array_equal(probabilities(values, output)[:, 0, -values.shape[1] :], values)
    return ("sigmoid" if values.shape[1] == 1 else "softmax") if given else "none"


def slots(values: np.ndarray, output: OutputContract) -> np.ndarray:
    """Returns the values of an output as ``(N, slots, classes)``; one slot if it has none."""
    return values.reshape(len(values), -1, output.classes)


def probabilities(values: np.ndarray, output: OutputContract) -> np.ndarray:
    """Returns the probability of each class, ``(N, slots, class_count)``.

    Logits go through a softmax; a single one through a sigmoid, and stands for the second of two
    classes. If the output does not say what it holds, rows that sum to 1 are probabilities, and
    single values if they all are from 0 to 1.

    Args:
        values: float ``(N, width)``.
        output: what they are.
    """
    rows = slots(values, output)
    if output.classes == 1:
        positive = rows if _holds_probabilities(values, output) else _sigmoid(rows)
        return np.concatenate([1 - positive, positive], axis=2)
    if output.activation in ("softmax", "sigmoid"):
        return rows
    if output.activation == "none":
        return softmax(rows)
    normalized = (rows >= 0).all(axis=2) & np.isclose(rows.sum(axis=2), 1, atol=1e-2)
    return np.where(normalized[..., np.newaxis], rows, softmax(rows))


def distances(
    values: np.ndarray, output: OutputContract, *, reference: np.ndarray | None = None
) -> np.ndarray:
    """Returns how far each value of binary decisions is from the threshold; a yes is positive.

    Args:
        values: float ``(N, width)``.
        output: what they are; ``is_binary``.
        reference: values that tell whether they are probabilities if the output does not; by
            default ``values``.
    """
    known = values if reference is None else reference
    is_probability = _holds_probabilities(known, output)
    return values - (_PROBABILITY_THRESHOLD if is_probability else _LOGIT_THRESHOLD)


def _holds_probabilities(values: np.ndarray, output: OutputContract) -> bool:
    if output.activation:
        return output.activation != "none"
    return bool(((values >= 0) & (values <= 1)).all())


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # The form that overflows for no logit.
    return 0.5 * (1 + np.tanh(logits / 2))
