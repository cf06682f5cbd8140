"""The JSON file beside an artifact: its contract, checksum, and golden inputs with logits.

With it an engine can be checked against Keras on a machine that has no Keras.
"""

import base64
import contextlib
import hashlib
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from cct_export.errors import InvalidArtifact
from cct_export.files import reason, sha256, write_text
from cct_export.records import checksum, weights
from cct_export.records.artifact import Artifact, Contract
from cct_export.records.encoding import from_json, parse_json, to_text
from cct_export.records.machine import Count
from cct_export.specs import JSONObject

GOLDEN_IMAGES = 16
# Sixteen images of 2,048 × 2,048; a sidecar may come from anyone.
MAX_GOLDEN_BYTES = 2**28
CHANGED = (
    "the file has changed since it was exported, for its checksum is another one: export it again"
)
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
class Integrity:
    """Whether a file is what was exported.

    Attributes:
        path: the file.
        changed: whether it was changed or damaged since; False where nothing tells.
        stray_sidecar: whether the sidecar beside it is of another file, or cannot be read.
    """

    path: Path
    changed: bool
    stray_sidecar: bool

    @property
    def warning(self) -> str:
        """What is wrong, and what to do; empty if nothing is."""
        stray = f"{path_of(self.path).name} is not of this file: export it again"
        return CHANGED if self.changed else stray if self.stray_sidecar else ""

    def require(self, otherwise: str = "") -> None:
        """Raises ``InvalidArtifact`` if the file has changed; ``otherwise`` is what else to do."""
        if self.changed:
            raise InvalidArtifact(f"{self.path}: {CHANGED}{otherwise}")


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

    It belongs to the file that it was written for, also where that was changed since: as long as
    the file carries the same checksum or, in one of an earlier version, the same contract.

    Args:
        path: the artifact.
        contract: what the file says about itself; None if that is not known.
    """
    try:
        fields = parse_json(path_of(path).read_bytes())
        artifact = _artifact(fields, path)
        if not _belongs(artifact, path.read_bytes(), contract):
            return None
        return Sidecar(artifact, _decode(from_json(fields["golden"], _EncodedGolden)))
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def examine(path: Path, contract: Contract | None = None) -> Integrity:
    """Compares a file with its own checksum; without one, with its sidecar.

    Args:
        path: the artifact.
        contract: what the file says about itself; None if that is not known.

    Raises:
        InvalidArtifact: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        why = reason(error, "it is no file")
        raise InvalidArtifact(f"{path} cannot be read: {why}") from error
    intact, belongs = checksum.is_intact(content), False
    if contract and contract.content_sha256 not in ("", checksum.carried(content)):
        intact = False  # another program wrote the contract anew, or it is not where the digits are
    with contextlib.suppress(OSError, ValueError):
        described = _artifact(parse_json(path_of(path).read_bytes()), path)
        belongs = _belongs(described, content, contract)
        if intact is None and belongs:
            intact = described.sha256 == hashlib.sha256(content).hexdigest()
        contract = contract or (described.contract if belongs else None)
    if contract and not _has_its_weights(path, contract):
        intact = False
    return Integrity(path, intact is False, not belongs and path_of(path).exists())


def _has_its_weights(path: Path, contract: Contract) -> bool:
    """Returns whether the file with the weights is the one that the contract names."""
    beside = weights.path_of(path)
    if beside is None or not contract.weights_sha256:
        return True
    try:
        return sha256(beside) == contract.weights_sha256
    except OSError:
        return False


def _belongs(described: Artifact, content: bytes, contract: Contract | None) -> bool:
    """Returns whether a sidecar was written for a file, whatever became of the file since."""
    own = checksum.carried(content)
    if own and own == described.contract.content_sha256:
        return True
    if described.sha256 == hashlib.sha256(content).hexdigest():
        return True
    # A file without a checksum is of an earlier version, or lost it.
    return not own and contract == replace(described.contract, content_sha256="")


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
