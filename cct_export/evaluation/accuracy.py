"""How right a session is on labelled images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cct_export.data.dataset import Dataset, check_classes
from cct_export.errors import InvalidData
from cct_export.evaluation.proportions import calibration_error, wilson
from cct_export.records import Accuracy
from cct_export.runtimes.session import Session, run

CHUNK = 256


class Scored(NamedTuple):
    """What a session did on labelled images.

    Attributes:
        accuracy: in all.
        right: bool ``(N,)``, whether the best class of each image is its label.
    """

    accuracy: Accuracy
    right: np.ndarray


def _ignore(done: int, total: int) -> None:
    """Default progress: none."""


def measure(
    session: Session, dataset: Dataset, progress: Callable[[int, int], None] = _ignore
) -> Scored:
    """Returns how right ``session`` is on the whole test split of ``dataset``.

    An image whose logits are not all finite is wrong, whatever they are, and stands in no column
    of the confusion matrix.

    Args:
        session: on any engine.
        dataset: with labels.
        progress: called with the number of images done, and of all.

    Raises:
        InvalidData: the data has labels that the model does not know.
    """
    labels = session.contract.labels
    check_classes(dataset, labels)
    logits = _logits(session, dataset, progress)
    targets = np.asarray(dataset.test.labels)
    if targets.max() >= logits.shape[1]:
        raise InvalidData(
            f"{dataset.name} has label {targets.max()}, the model {logits.shape[1]} logits"
        )
    return Scored(*score(logits, targets, dataset.name, tuple(labels)))


def _logits(session: Session, dataset: Dataset, progress: Callable[[int, int], None]) -> np.ndarray:
    split = dataset.test
    total, parts = len(split.labels), []
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        parts.append(run(session, split.images(list(range(start, stop)))))
        progress(stop, total)
    return np.concatenate(parts)


def score(
    logits: np.ndarray, targets: np.ndarray, data: str, labels: tuple[str, ...] = ()
) -> tuple[Accuracy, np.ndarray]:
    """Returns the accuracy of logits, and which images are right.

    Args:
        logits: float ``(N, classes)``.
        targets: int ``(N,)``, the true classes.
        data: where the images are from.
        labels: class names.
    """
    total, classes = logits.shape
    finite = np.isfinite(logits).all(axis=1)
    ranked = (-np.where(finite[:, None], logits, 0.0)).argsort(axis=1, kind="stable")
    hits = (ranked == targets[:, None]) & finite[:, None]
    right = hits[:, 0]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (targets[finite], ranked[finite, 0]), 1)
    top1, top5 = int(right.sum()), int(hits[:, :5].any(axis=1).sum())
    accuracy = Accuracy(
        top1=top1 / total,
        top5=top5 / total,
        samples=total,
        data=data,
        top1_interval=wilson(top1, total),
        top5_interval=wilson(top5, total),
        calibration_error=calibration_error(logits[finite], right[finite]),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        labels=labels,
    )
    return accuracy, right
