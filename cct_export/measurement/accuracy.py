"""Top-1 and top-5 of a session on labelled images."""

from cct_export.data.dataset import Dataset, check_classes
from cct_export.errors import InvalidData
from cct_export.results import Accuracy
from cct_export.runtimes.session import Session, run

CHUNK = 256


def measure(session: Session, dataset: Dataset) -> Accuracy:
    """Returns the accuracy of ``session`` on the whole test split of ``dataset``.

    Raises:
        InvalidData: the data has labels that the model does not know.
    """
    split = dataset.test
    check_classes(dataset, session.contract.get("labels", ()))
    total = len(split.labels)
    hits = {1: 0, 5: 0}
    for start in range(0, total, CHUNK):
        rows = range(start, min(start + CHUNK, total))
        logits = run(session, split.images(list(rows)))
        if split.labels.max() >= logits.shape[1]:
            raise InvalidData(
                f"{dataset.name} has label {split.labels.max()}, the model {logits.shape[1]} logits"
            )
        ranked = (-logits).argsort(axis=1, kind="stable")
        target = split.labels[start : start + len(logits), None]
        for k in hits:
            hits[k] += int((ranked[:, :k] == target).any(axis=1).sum())
    return Accuracy(hits[1] / total, hits[5] / total, total, dataset.name)
