"""A session: one artifact on one engine, from raw pixels to logits."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cct_export.data.dataset import Images, ImageShape

Logits = NDArray[np.float32]


class Session(Protocol):
    """What every engine gives.

    Attributes:
        engine: name and version of the engine.
        image_shape: height, width, channels.
        io: type of the image input.
        batch: images per call, None for any number.
        contract: what the file says about itself; empty if nothing.
        delegated_nodes: operators that run on the accelerator asked for, None if not known.
        total_nodes: operators in all, None if not known.
    """

    engine: tuple[str, str]
    image_shape: ImageShape
    io: str
    batch: int | None
    contract: dict[str, Any]
    delegated_nodes: int | None
    total_nodes: int | None

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once on an input made by ``prepare``; logits ``(n, classes)`` have been read."""
        ...

    def close(self) -> None:
        """Frees the engine."""
        ...


def prepare(session: Session, images: Images) -> np.ndarray:
    """Returns uint8 pixels ``(n, H, W, C)`` as the input type of ``session``."""
    if session.io == "uint8":
        return images
    if session.io == "int8":
        return (images.astype(np.int16) - 128).astype(np.int8)
    return images.astype(np.float32)


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
    return np.concatenate(parts)
