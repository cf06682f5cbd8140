"""The JSON file beside an artifact: its contract, checksum, and golden inputs with logits.

With it an engine can be checked against Keras on a machine that has no Keras.
"""

import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cct_export.files import sha256, write_text
from cct_export.results import Artifact

GOLDEN_IMAGES = 16


@dataclass(frozen=True)
class Golden:
    """Images with the logits that Keras gives them.

    Attributes:
        images: uint8 ``(N, H, W, C)``, 0–255.
        logits: float32 ``(N, classes)``.
        origin: where the images are from.
    """

    images: NDArray[np.uint8]
    logits: NDArray[np.float32]
    origin: str


@dataclass(frozen=True)
class Sidecar:
    """What is known about an artifact whose checksum is ``record["sha256"]``."""

    record: dict[str, Any]
    golden: Golden


def path_of(artifact: Path) -> Path:
    """Returns where the sidecar of ``artifact`` is: ``m.tflite.json`` for ``m.tflite``."""
    return artifact.with_name(artifact.name + ".json")


def write(artifact: Artifact, golden: Golden) -> None:
    """Writes the sidecar of ``artifact`` in one step; raises ``OutputError``."""
    record = artifact.to_dict() | {"path": artifact.path.name, "golden": _encode(golden)}
    write_text(path_of(artifact.path), json.dumps(record, indent=1) + "\n")


def read(artifact: Path) -> Sidecar | None:
    """Returns the sidecar of ``artifact``, None if there is none that belongs to this very file."""
    try:
        record = json.loads(path_of(artifact).read_text())
        if record["sha256"] != sha256(artifact):
            return None
        return Sidecar(record, _decode(record.pop("golden")))
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def _encode(golden: Golden) -> dict[str, Any]:
    return {
        "origin": golden.origin,
        "shape": list(golden.images.shape),
        "images_zlib_base64": base64.b64encode(zlib.compress(golden.images.tobytes())).decode(),
        "logits": [[float(value) for value in row] for row in golden.logits],
    }


def _decode(record: dict[str, Any]) -> Golden:
    pixels = zlib.decompress(base64.b64decode(record["images_zlib_base64"]))
    images = np.frombuffer(pixels, np.uint8).reshape(record["shape"])
    return Golden(images, np.asarray(record["logits"], np.float32), record["origin"])
