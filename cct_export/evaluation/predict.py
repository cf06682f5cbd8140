"""Classification of image files with an exported file or a Keras model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cct_export.data.decoding import decode
from cct_export.errors import InvalidModel
from cct_export.graph.interpret import softmax
from cct_export.records import Prediction
from cct_export.runtimes import engine_of, format_of, is_artifact
from cct_export.runtimes.session import Logits, Session, run


def open_any(source: Path) -> Session:
    """Opens a ``.tflite`` or ``.onnx`` file with its engine, anything else as a Keras model."""
    format = format_of(source) if is_artifact(source) else "keras"
    return engine_of(format).open_session(source)


def probabilities(logits: Logits) -> np.ndarray:
    """Returns the softmax of each row; rows that are probabilities already are returned as is."""
    normalized = (logits >= 0).all(axis=1) & np.isclose(logits.sum(axis=1), 1, atol=1e-2)
    return np.where(normalized[:, np.newaxis], logits, softmax(logits))


def classify(session: Session, *, images: Sequence[Path], top: int) -> list[Prediction]:
    """Classifies image files.

    Args:
        session: an open file or model.
        images: PNG or JPEG files of any size, which are resized bilinearly.
        top: classes per image.

    Returns:
        One prediction per image, in order.

    Raises:
        InvalidData: a file is missing or no image.
        InvalidModel: the logits are not finite, or there are not as many labels.
    """
    pixels = np.stack([decode(path, session.image_shape)[0] for path in images])
    logits = run(session, pixels)
    if not np.isfinite(logits).all():
        raise InvalidModel("the logits hold NaN or infinity: train or export the model again")
    rows = probabilities(logits)
    labels = session.contract.labels or tuple(map(str, range(rows.shape[1])))
    if len(labels) != rows.shape[1]:
        raise InvalidModel(f"{len(labels)} labels for {rows.shape[1]} logits: export it again")
    return [
        Prediction(path, tuple((labels[i], float(row[i])) for i in np.argsort(-row)[:top]))
        for path, row in zip(images, rows, strict=True)
    ]
