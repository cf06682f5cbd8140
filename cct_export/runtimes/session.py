"""A session: a model file opened by an engine, which computes logits from raw pixels."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import MAX_CLASSES, Images, ImageShape
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.names import choose
from cct_export.records import Contract
from cct_export.specs.progress import CountProgress, no_progress

Logits = NDArray[np.float32]

# Numbers in the images of one run, half a GiB as floats: 890 images of 224 × 224, or one of 6,688 ×
# 6,688. They are made in the process that asks, whose memory nothing limits.
MAX_VALUES = 2**27


class Quantization(NamedTuple):
    """Affine quantization of a tensor: ``real = scale · (integer − zero_point)``."""

    scale: float
    zero_point: int


class Session(Protocol):
    """The interface of every engine, whose sessions inherit the defaults.

    Attributes:
        engine: name and version of the engine.
        delegate: the delegate or execution provider in use, as ``Delegation`` names it.
        accelerator: kind of processor, such as ``cpu`` or ``gpu``.
        image_shape: height, width, channels.
        io: dtype of the image input.
        contract: the contract stored in the file.
        input_quantization: maps the input's integers to pixels 0–255; None if they are the pixels,
            or floats.
        output_quantization: maps the output's integers to logits; None for floats.
        batch: images per call; None for any number.
        delegated_nodes: operators that the delegate runs; None if not known.
        total_nodes: operators in all; None if not known.
    """

    engine: tuple[str, str]
    delegate: str
    accelerator: str
    image_shape: ImageShape
    io: str
    contract: Contract
    input_quantization: Quantization | None = None
    output_quantization: Quantization | None = None
    batch: int | None = None
    delegated_nodes: int | None = None
    total_nodes: int | None = None

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once on an input from ``prepare``; returns the raw output ``(n, classes)``."""
        ...

    def close(self) -> None:
        """Frees the engine."""
        ...


def check_contract(session: Session, *, path: Path, format: str, classes: int | None) -> None:
    """Refuses a file whose contract describes another graph than it has, or with giant images.

    Args:
        session: the session, with the images' size, number and type as the graph has them.
        path: the file.
        format: of the file.
        classes: number of the graph's logits; None if the file does not tell.

    Raises:
        InvalidArtifact: the contract contradicts the graph, or the images of one run have more than
            ``MAX_VALUES`` numbers.
    """
    shape = (session.batch or 1, *session.image_shape)
    if math.prod(shape) > MAX_VALUES:
        raise InvalidArtifact(
            f"{path} takes {' × '.join(map(str, shape))} numbers a run, more than the "
            f"{MAX_VALUES:,} that are possible: export it for smaller images"
        )
    problem = session.contract.contradiction(
        format=format, io=session.io, image_shape=session.image_shape, classes=classes
    )
    if problem:
        raise InvalidArtifact(f"{path}: {problem}")


def chosen_delegate(name: str, delegates: Iterable[str], *, engine: str, library: str = "") -> str:
    """Returns a delegate as its engine names it; the engine need not be installed.

    Args:
        name: what the user wrote: a name, or that of a library's kind, a colon and its path.
        delegates: names of the engine's delegates.
        engine: the engine, for messages.
        library: the one of ``delegates`` that is a library of the user's; empty if none is.

    Raises:
        InvalidRequest: there is no such delegate, the path is missing, or there is one too many.
    """
    kind, colon, path = name.partition(":")
    kind = choose(kind, delegates, what=f"delegate of {engine}")
    if kind == library:
        if not path:
            raise InvalidRequest(f"{name!r} names no library: write {library}:/path/to/library.so")
        return f"{kind}:{path}"
    if colon:
        raise InvalidRequest(f"the delegate {kind} of {engine} has no library: leave :{path} out")
    return kind


def check_logits(outputs: np.ndarray, *, images: int, path: str) -> None:
    """Refuses an output that is not a row of logits for each image.

    Args:
        outputs: what the engine computed.
        images: number of images that it got.
        path: the file.

    Raises:
        InvalidArtifact: it has another number of rows, no class, or more than any data set has.
    """
    rows, classes = outputs.shape
    if rows != images or not 0 < classes <= MAX_CLASSES:
        raise InvalidArtifact(
            f"{path} cannot be run: it gives {rows:,} × {classes:,} logits for {images}, not a row "
            f"of 1 to {MAX_CLASSES:,} for each image"
        )


def prepare(session: Session, images: Images) -> np.ndarray:
    """Converts uint8 pixels ``(n, H, W, C)`` to the input dtype of ``session``."""
    quantization = session.input_quantization
    if quantization is None:
        return images.astype(session.io, copy=False)
    limits = np.iinfo(session.io)
    integers = np.round(images / quantization.scale) + quantization.zero_point
    return integers.clip(limits.min, limits.max).astype(session.io)


def run(
    session: Session, images: Images, *, batch: int = 64, progress: CountProgress = no_progress
) -> Logits:
    """Computes the logits of any number of images.

    Args:
        session: an open session of any engine.
        images: uint8 ``(N, H, W, C)``, 0–255.
        batch: images per call where the file takes any number; fewer if they are large.
        progress: called with the number of images that are done, and of all.

    Returns:
        float32 ``(N, classes)``.
    """
    size = session.batch or min(batch, max(1, MAX_VALUES // max(1, math.prod(session.image_shape))))
    batches = []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        padding = 0 if session.batch is None else size - len(chunk)
        if padding:
            chunk = np.concatenate([chunk, chunk[-1:].repeat(padding, axis=0)])
        outputs = session.invoke(prepare(session, chunk))
        batches.append(outputs[: len(outputs) - padding])
        progress(min(start + size, len(images)), len(images))
    return dequantize(np.concatenate(batches), session.output_quantization)


def dequantize(outputs: np.ndarray, quantization: Quantization | None) -> Logits:
    """Returns float32 logits of an engine's output; floats stay as they are."""
    if quantization is not None:
        outputs = (outputs.astype(np.float64) - quantization.zero_point) * quantization.scale
    return outputs.astype(np.float32, copy=False)
