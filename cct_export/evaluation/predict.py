"""Classifying pictures with an artifact or a Keras model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cct_export.data.decoding import decode
from cct_export.errors import InvalidModel
from cct_export.records import Prediction
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import Logits, Session, run


def open_any(source: Path) -> Session:
    """Opens an artifact by its suffix, anything else as a Keras MODEL."""
    format = source.suffix[1:] if source.suffix in (".tflite", ".onnx") else "keras"
    session: Session = engine_of(format).open_session(source)
    return session


def probabilities(logits: Logits) -> np.ndarray:
    """Returns the softmax of each row; rows that already are probabilities stay as they are."""
    ready = (logits >= 0).all(axis=1) & np.isclose(logits.sum(axis=1), 1, atol=1e-2)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return np.where(ready[:, np.newaxis], logits, shares)


def classify(session: Session, images: Sequence[Path], top: int) -> list[Prediction]:
    """Classifies image files.

    Args:
        session: an artifact or model, opened.
        images: PNG or JPEG files of any size; resized bilinearly to what the session takes.
        top: classes to give per image.

    Raises:
        InvalidData: a file is missing or no image.
    """
    pixels = np.stack([decode(path, session.image_shape)[0] for path in images])
    logits = run(session, pixels)
    if not np.isfinite(logits).all():
        raise InvalidModel("the logits hold NaN or infinity: there is nothing to predict")
    shares = probabilities(logits)
    names = session.contract.labels or [str(i) for i in range(shares.shape[1])]
    if len(names) != shares.shape[1]:
        raise InvalidModel(f"{len(names)} labels for {shares.shape[1]} logits: export it again")
    return [
        Prediction(path, tuple((names[i], float(row[i])) for i in np.argsort(-row)[:top]))
        for path, row in zip(images, shares, strict=True)
    ]
