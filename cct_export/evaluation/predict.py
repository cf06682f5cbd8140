"""Classification of image files with an exported file or a Keras model."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from cct_export.data.dataset import Images
from cct_export.data.decoding import decode
from cct_export.errors import InvalidData, InvalidModel
from cct_export.evaluation.outputs import cut, is_guessed, probabilities
from cct_export.files import check_file
from cct_export.records import Answer, OutputContract, Prediction, sidecar
from cct_export.runtimes import engine_of, format_of, is_artifact
from cct_export.runtimes.session import Session, run
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
            _warn_if_guessed(source, session)
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
        _warn_if_guessed(source, session)
        yield session


def _warn_if_guessed(source: Path, session: Session) -> None:
    if is_guessed(session.outputs):
        log.warning(
            "%s does not say whether it gives logits or probabilities: values that sum to 1 are "
            "taken for probabilities, and so is a single value if all are from 0 to 1; end the "
            "model in a layer of Keras, such as Dense or Softmax, and export it again",
            source,
        )


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
        top: classes per image and output; of slots it is always the best one.
        on_unreadable: called with the error of every image that cannot be read and is left out.
        progress: called at the start of every batch.

    Yields:
        The predictions, in the order of the images.

    Raises:
        InvalidData: by default, if a file is missing or no image.
        InvalidModel: the logits are not finite.
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
            answers = _answers(session, np.stack(pixels), top)
            for path, answer in zip(paths, answers, strict=True):
                yield Prediction.of(path, answer)


def _answers(session: Session, images: Images, top: int) -> Iterator[tuple[Answer, ...]]:
    """Yields what each output says about each image."""
    logits = run(session, images)
    if not np.isfinite(logits).all():
        raise InvalidModel("the logits hold NaN or infinity: train or export the model again")
    labels = session.contract.labels
    by_output = []
    for output, values in cut(logits, session.outputs):
        names = output.class_names(labels)
        rows = probabilities(values, output)
        by_output.append([_answer(output, names, row, top) for row in rows])
    yield from zip(*by_output, strict=True)


def _answer(output: OutputContract, names: tuple[str, ...], row: np.ndarray, top: int) -> Answer:
    """Returns the answer of ``row``, probabilities ``(slots, classes)``."""
    if not output.has_slots:
        best = np.argsort(-row[0])[:top]
        return Answer(output.name, tuple((names[i], float(row[0, i])) for i in best))
    scores = tuple((names[slot.argmax()], float(slot.max())) for slot in row)
    separator = "" if max(map(len, names)) == 1 else " "
    return Answer(output.name, scores, separator.join(label for label, _ in scores))
