"""The JSON file beside an artifact: its contract, checksum, and golden inputs with logits.

With it an engine can be checked against Keras on a machine that has no Keras.
"""

import base64
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cct_export.files import sha256, write_text
from cct_export.records import Artifact

GOLDEN_IMAGES = 16
# Sixteen images of 2,048 × 2,048; a sidecar may come from anyone.
MOST_GOLDEN_BYTES = 2**28


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


def read(artifact: Path, contract: dict[str, Any] | None = None) -> Sidecar | None:
    """Returns the sidecar of ``artifact``, None if there is none that belongs to it.

    Args:
        artifact: the file.
        contract: what the file says about itself. With it, the sidecar of a file that was changed
            since belongs to it, too, if both were made of one model: what that model answers
            still holds.
    """
    path = path_of(artifact)
    if not path.is_file():
        return None
    try:
        record = parse_contract(path.read_text())
        source = (contract or {}).get("source_sha256")
        same_model = source is not None and source == record.get("source_sha256")
        if not same_model and record["sha256"] != sha256(artifact):
            return None
        if not {"scheme", "source"} <= record.keys():
            return None
        return Sidecar(record, _decode(record.pop("golden")))
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def parse_contract(text: str) -> dict[str, Any]:
    """Returns a contract read from a file that anyone may have written.

    Raises:
        ValueError: it is no JSON object, or an entry that others rely on has another type.
    """
    try:
        record = json.loads(text, parse_constant=_refuse)
        json.dumps(record, ensure_ascii=False).encode()  # half of a pair cannot be written anywhere
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    for key in ("format", "scheme", "source", "source_sha256"):
        if not isinstance(record.get(key, ""), str):
            raise ValueError(f"{key} is no text")
    labels = record.get("labels", [])
    if not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise ValueError("labels is no list of texts")
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _encode(golden: Golden) -> dict[str, Any]:
    return {
        "origin": golden.origin,
        "shape": list(golden.images.shape),
        "images_zlib_base64": base64.b64encode(zlib.compress(golden.images.tobytes())).decode(),
        "logits": [[float(value) for value in row] for row in golden.logits],
    }


def _decode(record: dict[str, Any]) -> Golden:
    size = math.prod(record["shape"])
    if not 0 < size <= MOST_GOLDEN_BYTES:
        raise ValueError(f"golden images of shape {record['shape']}")
    packed = base64.b64decode(record["images_zlib_base64"])
    pixels = zlib.decompressobj().decompress(packed, size)
    images = np.frombuffer(pixels, np.uint8).reshape(record["shape"])
    logits = np.asarray(record["logits"], np.float32)
    if images.ndim != 4 or logits.ndim != 2 or len(images) != len(logits):
        raise ValueError("golden images and logits do not belong together")
    return Golden(images, logits, str(record["origin"]))
