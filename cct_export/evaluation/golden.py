"""Whether an artifact answers to the golden images of its sidecar what its model answers."""

from dataclasses import dataclass
from pathlib import Path

from cct_export.evaluation import parity
from cct_export.files import sha256
from cct_export.records import ParityReport, sidecar
from cct_export.runtimes.session import Session, run
from cct_export.specs import Delegation


@dataclass(frozen=True)
class GoldenCheck:
    """An artifact against the golden images of its sidecar.

    Attributes:
        parity: how close the logits are; None without a sidecar.
        changed: whether the file is another one than the sidecar was written for.
    """

    parity: ParityReport | None = None
    changed: bool = False


def check(session: Session, path: Path, delegation: Delegation) -> GoldenCheck:
    """Compares what an artifact computes for its golden images with the logits of Keras.

    The delegate itself computes them: a fast one may be wrong.

    Args:
        session: on the artifact, wherever it runs.
        path: of the artifact.
        delegation: what runs it; computing in fp16 may be part of it.
    """
    beside = sidecar.read(path, session.contract) if path.is_file() else None
    if beside is None or beside.golden.images.shape[1:] != session.image_shape:
        return GoldenCheck()
    found = run(session, beside.golden.images)
    if found.shape != beside.golden.logits.shape:
        return GoldenCheck()
    scheme = beside.contract.scheme
    if scheme == "none" and dict(delegation.options).get("precision") == "fp16":
        scheme = "fp16"  # computing so was asked for
    report = parity.compare(
        beside.golden.logits,
        found,
        scheme,
        names=(beside.contract.source, str(path)),
        images=f"golden images in the sidecar ({beside.golden.origin})",
        policy=parity.policy_of(scheme, golden=True),
    )
    return GoldenCheck(report, beside.artifact.sha256 != sha256(path))
