"""A session: a model file opened by an engine, which computes logits from raw pixels.

Logits are what the outputs hold, be it probabilities too: one row per image, in which the values of
all outputs follow each other; ``evaluation.outputs`` takes them apart.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import MAX_CLASSES, Images, ImageShape
from cct_export.errors import InvalidArtifact, InvalidRequest
from cct_export.names import choose
from cct_export.records import Contract, OutputContract
from cct_export.records.layout import NCHW, NHWC
from cct_export.specs.progress import CountProgress, no_progress

Logits = NDArray[np.float32]

# Numbers in the images of one run, half a GiB as floats: 890 images of 224 × 224, or one of 6,688 ×
# 6,688. They are made in the process that asks, whose memory nothing limits.
MAX_VALUES = 2**27
# Numbers in the images of one call where the file takes any number: 64 images of 72 × 72, or 6 of
# 224 × 224, whose feature maps are many times as large.
_BATCH_VALUES = 2**20


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
        layout: order of the axes of the image input, ``NHWC`` or ``NCHW``.
        io: dtype of the image input.
        contract: the contract stored in the file.
        input_quantization: maps the input's integers to pixels 0–255; None if they are the pixels,
            or floats.
        outputs: what each output holds, by the file's contract where it has one.
        output_quantizations: maps the integers of each output to its values; None for floats, and
            empty if all are.
        batch: images per call; None for any number.
        delegated_nodes: operators that the delegate runs; None if not known.
        total_nodes: operators in all; None if not known.
        arena_bytes: memory that TFLite Micro takes; None of other engines.
    """

    engine: tuple[str, str]
    delegate: str
    accelerator: str
    image_shape: ImageShape
    layout: str = NHWC
    io: str
    contract: Contract
    input_quantization: Quantization | None = None
    outputs: tuple[OutputContract, ...]
    output_quantizations: tuple[Quantization | None, ...] = ()
    batch: int | None = None
    delegated_nodes: int | None = None
    total_nodes: int | None = None
    arena_bytes: int | None = None

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once on an input from ``prepare``; returns the raw outputs, see ``side_by_side``."""
        ...

    def close(self) -> None:
        """Frees the engine."""
        ...


def checked_outputs(
    session: Session, *, path: Path, format: str, outputs: Sequence[OutputContract]
) -> tuple[OutputContract, ...]:
    """Returns what the outputs hold: what the graph tells, with the contract's names for it.

    Args:
        session: the session, with the images' size, number and type as the graph has them.
        path: the file.
        format: of the file.
        outputs: as the graph has them.

    Raises:
        InvalidArtifact: the contract contradicts the graph, the images of one run have more than
            ``MAX_VALUES`` numbers, or several outputs have unknown sizes.
    """
    shape = (session.batch or 1, *session.image_shape)
    if math.prod(shape) > MAX_VALUES:
        raise InvalidArtifact(
            f"{path} takes {' × '.join(map(str, shape))} numbers a run, more than the "
            f"{MAX_VALUES:,} that are possible: export it for smaller images"
        )
    problem = session.contract.contradiction(
        format=format,
        io=session.io,
        layout=session.layout,
        image_shape=session.image_shape,
        outputs=outputs,
    )
    if problem:
        raise InvalidArtifact(f"{path}: {problem}")
    claimed = session.contract.all_outputs or tuple(outputs)
    merged = tuple(
        replace(claim, dtype=found.dtype, shape=claim.sizes if claim.width else ())
        for claim, found in zip(claimed, outputs, strict=True)
    )
    if len(merged) > 1 and not all(output.width for output in merged):
        raise InvalidArtifact(
            f"{path} does not tell the sizes of its {len(merged)} outputs: export it with fixed "
            "ones"
        )
    return merged


def classifies(image_rank: int, output_ranks: Sequence[int]) -> bool:
    """Returns whether a graph maps an image to classes, or slots of classes, by its ranks."""
    return image_rank == 4 and bool(output_ranks) and set(output_ranks) <= {2, 3}


def side_by_side(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the values of all outputs, a row per image, in the outputs' own type."""
    rows = [output if output.ndim == 2 else _rows(output) for output in outputs]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


def _rows(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), math.prod(output.shape[1:]))


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
    """Converts uint8 pixels ``(n, H, W, C)`` to the input dtype and layout of ``session``."""
    if session.layout == NCHW:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
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
        float32 ``(N, values of all outputs)``; ``(N, classes)`` of a single output without slots.
    """
    size = session.batch or min(
        batch, max(1, _BATCH_VALUES // max(1, math.prod(session.image_shape)))
    )
    batches = []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        padding = 0 if session.batch is None else size - len(chunk)
        if padding:
            chunk = np.concatenate([chunk, chunk[-1:].repeat(padding, axis=0)])
        outputs = session.invoke(prepare(session, chunk))
        batches.append(outputs[: len(outputs) - padding])
        progress(min(start + size, len(images)), len(images))
    return dequantize(session, np.concatenate(batches))


def dequantize(session: Session, values: np.ndarray) -> Logits:
    """Returns float32 logits of what ``Session.invoke`` returned; floats stay as they are."""
    if not any(session.output_quantizations):
        return values.astype(np.float32, copy=False)
    widths = [output.width for output in session.outputs]
    parts = [values] if len(widths) == 1 else np.split(values, np.cumsum(widths)[:-1], axis=1)
    return side_by_side(
        [
            _dequantized(part, quantization)
            for part, quantization in zip(parts, session.output_quantizations, strict=True)
        ]
    )


def _dequantized(values: np.ndarray, quantization: Quantization | None) -> Logits:
    if quantization is not None:
        values = (values.astype(np.float64) - quantization.zero_point) * quantization.scale
    return values.astype(np.float32, copy=False)
