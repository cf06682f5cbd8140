"""The JSON file beside an artifact: its contract, checksum, and golden inputs with logits.

With it an engine can be checked against Keras on a machine that has no Keras.
"""

import base64
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from cct_export.files import sha256, write_text
from cct_export.records.artifact import Artifact, Contract
from cct_export.records.encoding import from_json, parse_json, to_text
from cct_export.records.machine import Count
from cct_export.specs import JSONObject

GOLDEN_IMAGES = 16
# Sixteen images of 2,048 × 2,048; a sidecar may come from anyone.
MAX_GOLDEN_BYTES = 2**28
_FLOAT32_MAX = float(np.finfo(np.float32).max)
Logit = Annotated[float, Meta(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]


@dataclass(frozen=True)
class Golden:
    """Images with the logits that Keras computes for them.

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
    """What is known about an artifact.

    Attributes:
        artifact: contract, size and checksum of the file that the sidecar was written for.
        golden: what the file has to answer.
    """

    artifact: Artifact
    golden: Golden

    @property
    def contract(self) -> Contract:
        """What the file says about itself."""
        return self.artifact.contract


@dataclass(frozen=True)
class _EncodedGolden:
    """``Golden`` as JSON has it."""

    origin: str
    shape: tuple[Count, ...]
    images_zlib_base64: str
    logits: list[list[Logit]]


def path_of(artifact: Path) -> Path:
    """Returns where the sidecar of ``artifact`` is: ``m.tflite.json`` for ``m.tflite``."""
    return artifact.with_name(artifact.name + ".json")


def write(artifact: Artifact, golden: Golden) -> None:
    """Writes the sidecar of ``artifact`` in one step; raises ``OutputError``."""
    fields = artifact.to_dict() | {"path": artifact.path.name, "golden": _encode(golden)}
    write_text(path_of(artifact.path), to_text(fields))


def read(path: Path, contract: Contract | None = None) -> Sidecar | None:
    """Returns the sidecar of an artifact, None if there is none that belongs to it.

    Args:
        path: the artifact.
        contract: what the file says about itself. With it, the sidecar of a file that was changed
            since belongs to it too, if both were made of one model: what that model answers still
            holds.
    """
    beside = path_of(path)
    if not beside.is_file():
        return None
    try:
        fields = parse_json(beside.read_bytes())
        artifact = _artifact(fields, path)
        same_model = (
            contract is not None
            and contract.source_sha256 != ""
            and contract.source_sha256 == artifact.contract.source_sha256
        )
        if not same_model and artifact.sha256 != sha256(path):
            return None
        return Sidecar(artifact, _decode(from_json(fields["golden"], _EncodedGolden)))
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


@dataclass(frozen=True)
class _Header:
    """The fields without which a sidecar is none."""

    scheme: str
    source: str
    sha256: str
    size_bytes: Count = 0


def _artifact(fields: JSONObject, path: Path) -> Artifact:
    """Returns the artifact that a sidecar describes; raises ``ValueError``."""
    header = from_json(fields, _Header)
    return Artifact(path, Contract.from_dict(fields), header.size_bytes, header.sha256)


def _encode(golden: Golden) -> _EncodedGolden:
    return _EncodedGolden(
        origin=golden.origin,
        shape=golden.images.shape,
        images_zlib_base64=base64.b64encode(zlib.compress(golden.images.tobytes())).decode(),
        logits=[[float(value) for value in row] for row in golden.logits],
    )


def _decode(encoded: _EncodedGolden) -> Golden:
    size = math.prod(encoded.shape)
    if not 0 < size <= MAX_GOLDEN_BYTES:
        raise ValueError(f"golden images of shape {encoded.shape}")
    packed = base64.b64decode(encoded.images_zlib_base64)
    pixels = zlib.decompressobj().decompress(packed, size)
    images = np.frombuffer(pixels, np.uint8).reshape(encoded.shape)
    logits = np.asarray(encoded.logits, np.float32)
    if images.ndim != 4 or logits.ndim != 2 or len(images) != len(logits):
        raise ValueError("golden images and logits do not belong together")
    return Golden(images, logits, encoded.origin)
