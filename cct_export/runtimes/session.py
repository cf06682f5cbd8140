"""A session: one artifact on one engine, from raw pixels to logits."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import Images, ImageShape
from cct_export.records import Contract

Logits = NDArray[np.float32]


class Quantization(NamedTuple):
    """An integer q stands for ``scale · (q − zero_point)``."""

    scale: float
    zero_point: int


class Session(Protocol):
    """What every engine gives.

    Attributes:
        engine: name and version of the engine.
        delegate: what the engine hands its work to, as ``Delegation`` names it.
        accelerator: the kind of processor that runs it, such as ``cpu`` or ``gpu``.
        image_shape: height, width, channels.
        io: type of the image input.
        input_quantization: how the input's integers stand for pixels 0–255; None if they are the
            pixels, or floats.
        output_quantization: how the output's integers stand for logits; None for floats.
        batch: images per call, None for any number.
        contract: what the file says about itself.
        delegated_nodes: operators that the delegate runs, None if not known.
        total_nodes: operators in all, None if not known.
    """

    engine: tuple[str, str]
    delegate: str
    accelerator: str
    image_shape: ImageShape
    io: str
    input_quantization: Quantization | None
    output_quantization: Quantization | None
    batch: int | None
    contract: Contract
    delegated_nodes: int | None
    total_nodes: int | None

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once on an input made by ``prepare``; returns the output, read: ``(n, classes)``."""
        ...

    def close(self) -> None:
        """Frees the engine."""
        ...


def prepare(session: Session, images: Images) -> np.ndarray:
    """Returns uint8 pixels ``(n, H, W, C)`` as the input type of ``session``."""
    quantized = session.input_quantization
    if quantized is None:
        return images.astype(session.io, copy=False)
    limits = np.iinfo(session.io)
    steps = np.round(images / quantized.scale) + quantized.zero_point
    return steps.clip(limits.min, limits.max).astype(session.io)


def run(session: Session, images: Images, step: int = 64) -> Logits:
    """Returns the logits of any number of images.

    Args:
        session: on any engine.
        images: uint8 ``(N, H, W, C)``, 0–255.
        step: images per call where the artifact takes any number.

    Returns:
        float32 ``(N, classes)``.
    """
    size = session.batch or step
    parts = []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        missing = 0 if session.batch is None else size - len(chunk)
        if missing:
            chunk = np.concatenate([chunk, chunk[-1:].repeat(missing, axis=0)])
        logits = session.invoke(prepare(session, chunk))
        parts.append(logits[: len(logits) - missing])
    return dequantized(np.concatenate(parts), session.output_quantization)


def dequantized(logits: np.ndarray, quantized: Quantization | None) -> Logits:
    """Returns the logits that integers stand for; floats as they are."""
    if quantized is not None:
        logits = (logits.astype(np.float64) - quantized.zero_point) * quantized.scale
    return logits.astype(np.float32, copy=False)
