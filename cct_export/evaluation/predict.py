"""Classification of image files with an exported file or a Keras model."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from cct_export.data.dataset import Images
from cct_export.data.decoding import decode
from cct_export.errors import InvalidData, InvalidModel
from cct_export.files import check_file
from cct_export.graph.interpret import softmax
from cct_export.records import Prediction, sidecar
from cct_export.runtimes import engine_of, format_of, is_artifact
from cct_export.runtimes.session import Logits, Session, run
from cct_export.specs import NO_OPTIONS, ModelOptions
from cct_export.specs.progress import StatusProgress, no_progress

log = logging.getLogger(__name__)

# Images that are decoded and run at a time.
BATCH = 64
_ALLOW = ", or classify all the same with --allow-changed"


@contextmanager
def opened(
    source: Path, *, allow_changed: bool = False, options: ModelOptions = NO_OPTIONS
) -> Iterator[Session]:
    """Opens a ``.tflite`` or ``.onnx`` file with its engine, anything else as a Keras model.

    Args:
        source: the file or model.
        allow_changed: whether a file that has changed since it was exported is only warned of.
        options: how to load a model.

    Raises:
        InvalidArtifact: the file cannot be run, or has changed.
        CCTExportError: the model cannot be loaded.
    """
    if not is_artifact(source):
        with closing(engine_of("keras").open_session(source, options=options)) as session:
            yield session
        return
    check_file(source)
    if not allow_changed:
        sidecar.examine(source).require(_ALLOW)  # before an engine reads it
    with closing(engine_of(format_of(source)).open_session(source)) as session:
        integrity = sidecar.examine(source, session.contract)
        if not allow_changed:
            integrity.require(_ALLOW)
        if integrity.warning:
            log.warning("%s: %s", source, integrity.warning)
        yield session


def probabilities(logits: Logits) -> np.ndarray:
    """Returns the softmax of each row; rows that are probabilities already are returned as is."""
    normalized = (logits >= 0).all(axis=1) & np.isclose(logits.sum(axis=1), 1, atol=1e-2)
    return np.where(normalized[:, np.newaxis], logits, softmax(logits))


def refuse(error: InvalidData) -> None:
    """Raises ``error``: an image that cannot be read ends the work."""
    raise error


def classify(
    session: Session,
    *,
    images: Sequence[Path],
    top: int,
    on_unreadable: Callable[[InvalidData], None] = refuse,
    progress: StatusProgress = no_progress,
) -> Iterator[Prediction]:
    """Classifies image files, a batch in memory at a time.

    Args:
        session: an open file or model.
        images: image files of any size, see ``data.decoding.FORMATS``.
        top: classes per image.
        on_unreadable: called with the error of every image that cannot be read and is left out.
        progress: called at the start of every batch.

    Yields:
        The predictions, in the order of the images.

    Raises:
        InvalidData: by default, if a file is missing or no image.
        InvalidModel: the logits are not finite, or there are not as many labels.
    """
    for start in range(0, len(images), BATCH):
        progress(f"{start:,} of {len(images):,} images")
        paths: list[Path] = []
        pixels: list[Images] = []
        for path in images[start : start + BATCH]:
            try:
                pixels.append(decode(path, session.image_shape, session.contract.resize)[0])
                paths.append(path)
            except InvalidData as error:
                on_unreadable(error)
        if paths:
            for path, best in zip(paths, _best(session, np.stack(pixels), top), strict=True):
                yield Prediction(path, best)


def _best(session: Session, images: Images, top: int) -> list[tuple[tuple[str, float], ...]]:
    """Returns the best classes of each image with their probabilities."""
    logits = run(session, images)
    if not np.isfinite(logits).all():
        raise InvalidModel("the logits hold NaN or infinity: train or export the model again")
    rows = probabilities(logits)
    labels = session.contract.labels or tuple(map(str, range(rows.shape[1])))
    if len(labels) != rows.shape[1]:
        raise InvalidModel(f"{len(labels)} labels for {rows.shape[1]} logits: export it again")
    return [tuple((labels[i], float(row[i])) for i in np.argsort(-row)[:top]) for row in rows]
