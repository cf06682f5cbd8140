"""Accuracy on labelled images, with confidence intervals.

The statistics use the standard library: SciPy is not installed on small devices.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from cct_export.data.dataset import Dataset, check_classes
from cct_export.errors import InvalidData
from cct_export.evaluation.outputs import cut, distances, probabilities
from cct_export.records import Accuracy, OutputContract, PairedAccuracy
from cct_export.runtimes.session import Logits, Session, run
from cct_export.specs.progress import CountProgress, no_progress

CHUNK = 256
CONFIDENCE = 0.95
BINS = 15


class Scored(NamedTuple):
    """The predictions of a session, compared with the labels.

    Attributes:
        accuracy: over all images.
        correct: bool ``(N,)``, whether the best class of each image is its label.
    """

    accuracy: Accuracy
    correct: np.ndarray


def measure(session: Session, *, dataset: Dataset, progress: CountProgress = no_progress) -> Scored:
    """Measures the accuracy of a session on the whole test split of a dataset.

    Args:
        session: an open session of any engine.
        dataset: labelled images.
        progress: called with the number of images done, and of all.

    Returns:
        The accuracy, and which images are classified correctly; see ``score``.

    Raises:
        InvalidData: the labels are not those of the model.
    """
    check_labels(session, dataset)
    output = _labelled_output(session.outputs, dataset)
    logits = _logits(session, dataset, progress)
    (values,) = (part for each, part in cut(logits, session.outputs) if each.name == output.name)
    targets = np.asarray(dataset.test.labels)
    labels = session.contract.labels
    return score(values, targets=targets, data=dataset.name, labels=labels, output=output)


def check_labels(session: Session, dataset: Dataset) -> None:
    """Raises ``InvalidData`` if the labels of a dataset are not those of the model."""
    check_classes(dataset, session.contract.labels)
    (image,) = dataset.test.images([0])
    values = run(session, image[np.newaxis])
    wanted = _labelled_output(session.outputs, dataset)
    (output,) = (each for each, _ in cut(values, session.outputs) if each.name == wanted.name)
    largest = int(np.max(dataset.test.labels))
    if largest >= output.class_count:
        raise InvalidData(
            f"{dataset.name} has label {largest}, the model {output.class_count} classes"
        )


def _labelled_output(outputs: Sequence[OutputContract], dataset: Dataset) -> OutputContract:
    """Returns the output that the labels of a dataset are of.

    Raises:
        InvalidData: there is none, or more than one.
    """
    if len(outputs) == 1 and not outputs[0].has_slots:
        return outputs[0]
    classes = len(dataset.classes)
    fitting = [each for each in outputs if not each.has_slots and each.class_count == classes]
    if len(fitting) != 1:
        shapes = ", ".join(f"{each.name} {list(each.sizes)}" for each in outputs)
        raise InvalidData(
            f"accuracy needs one output for the one label that {dataset.name} has per image, of "
            f"{classes} classes; the model gives {shapes}: parity and latency can be measured"
        )
    return fitting[0]


def _logits(session: Session, dataset: Dataset, progress: CountProgress) -> Logits:
    split = dataset.test
    total, chunks = len(split.labels), []
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        chunks.append(run(session, split.images(list(range(start, stop)))))
        progress(stop, total)
    return np.concatenate(chunks)


def score(
    logits: np.ndarray,
    *,
    targets: np.ndarray,
    data: str,
    labels: tuple[str, ...] = (),
    output: OutputContract | None = None,
) -> Scored:
    """Compares logits with labels.

    An image whose logits are not all finite counts as wrong, and is left out of the confusion
    matrix.

    Args:
        logits: float ``(N, classes)``, or what else the output holds.
        targets: int ``(N,)``, the true classes.
        data: where the images are from.
        labels: class names.
        output: what the logits are of; by default logits of the classes.

    Returns:
        The accuracy, and which images are classified correctly.
    """
    output = output or OutputContract("logits", "float32", logits.shape[1], activation="none")
    total, classes = len(logits), output.class_count
    finite = np.isfinite(logits).all(axis=1)
    chances = probabilities(logits[finite].astype(np.float64), output)[:, 0]
    if output.classes == 1:  # as the logits of two classes
        logits = np.concatenate([-distances(logits, output), distances(logits, output)], axis=1)
    ranked = (-np.where(finite[:, None], logits, 0.0)).argsort(axis=1, kind="stable")
    hits = (ranked == targets[:, None]) & finite[:, None]
    correct = hits[:, 0]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (targets[finite], ranked[finite, 0]), 1)
    top1 = int(correct.sum())
    top5 = int(hits[:, :5].any(axis=1).sum()) if classes > 5 else None
    accuracy = Accuracy(
        top1=top1 / total,
        top5=None if top5 is None else top5 / total,
        samples=total,
        data=data,
        top1_interval=wilson_interval(top1, total),
        top5_interval=None if top5 is None else wilson_interval(top5, total),
        calibration_error=calibration_error(chances, correct=correct[finite]),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        labels=labels,
    )
    return Scored(accuracy, correct)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a proportion (Wilson, JASA 22, 1927).

    Args:
        hits: 0 to ``total``.
        total: at least one.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    proportion = hits / total
    center = proportion + z * z / (2 * total)
    margin = z * math.sqrt(proportion * (1 - proportion) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Rounding would miss the bounds 0 and 1, which are exact here.
    low = 0.0 if hits == 0 else (center - margin) / scale
    high = 1.0 if hits == total else (center + margin) / scale
    return low, high


def calibration_error(probabilities: np.ndarray, *, correct: np.ndarray) -> float:
    """Returns the expected calibration error over 15 equal bins (arXiv:1706.04599, equation 3).

    Args:
        probabilities: ``(N, classes)``, 0 to 1.
        correct: bool ``(N,)``.

    Returns:
        The mean absolute difference of accuracy and confidence (the probability of the best class),
        0 to 1; 0 for no images.
    """
    if not len(probabilities):
        return 0.0
    confidence = probabilities.max(axis=1)
    bins = np.ceil(confidence * BINS).astype(int).clip(1, BINS) - 1
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(probabilities))


def mcnemar(*, reference: np.ndarray, candidate: np.ndarray) -> PairedAccuracy:
    """Compares two models on the same images (McNemar, Psychometrika 12, 1947; the exact test).

    Args:
        reference: bool ``(N,)``, whether the reference classifies each image correctly.
        candidate: bool ``(N,)``, the same of the candidate.
    """
    only_reference = int((reference & ~candidate).sum())
    only_candidate = int((candidate & ~reference).sum())
    discordant, smaller = only_reference + only_candidate, min(only_reference, only_candidate)
    tail = sum(math.comb(discordant, k) for k in range(smaller + 1))
    return PairedAccuracy(
        reference_top1=float(reference.mean()),
        only_reference=only_reference,
        only_candidate=only_candidate,
        # Integers until the division: 2 to the power of 5,000 overflows a float.
        p_value=min(1.0, (2 * tail) / (1 << discordant)),
    )
