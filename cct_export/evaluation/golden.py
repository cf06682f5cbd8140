"""Numerical parity on the golden images of a sidecar, on machines without Keras."""

from dataclasses import dataclass
from pathlib import Path

from cct_export.evaluation import parity
from cct_export.records import ParityReport, sidecar
from cct_export.runtimes import is_artifact
from cct_export.runtimes.session import Session, run
from cct_export.specs import Delegation


@dataclass(frozen=True)
class GoldenCheck:
    """A file compared with the golden logits of its sidecar.

    Attributes:
        parity: how close the logits are; None where that is unknown.
        changed: whether the file has changed since it was exported.
        unknown: why the parity is unknown; empty if it is known, or if there is none to know.
    """

    parity: ParityReport | None = None
    changed: bool = False
    unknown: str = ""


def check(session: Session, *, path: Path, delegation: Delegation) -> GoldenCheck:
    """Compares the logits of a file for its golden images with those of Keras.

    Args:
        session: the open file, on any machine. Its own delegate computes the logits: a fast
            delegate may be wrong.
        path: the file.
        delegation: the delegate of the session; it may compute in less than float32.

    Returns:
        The parity on the golden images, or why it is unknown.
    """
    if not is_artifact(path):
        return GoldenCheck()  # a Keras model is the reference itself
    beside, changed = sidecar.path_of(path), sidecar.examine(path, session.contract).changed
    if not beside.is_file():
        return GoldenCheck(changed=changed, unknown=f"there is no {beside.name} beside it")
    of_another = GoldenCheck(changed=changed, unknown=f"{beside.name} is not of this file")
    expected = sidecar.read(path, session.contract)
    if expected is None or expected.golden.images.shape[1:] != session.image_shape:
        return of_another
    logits = run(session, expected.golden.images)
    if logits.shape != expected.golden.logits.shape:
        return of_another
    scheme = expected.contract.scheme
    precision = dict(delegation.options).get("precision", "").lower()
    report = parity.compare(
        expected.golden.logits,
        candidate=logits,
        scheme=scheme,
        names=(expected.contract.source, str(path)),
        images=f"golden images in the sidecar ({expected.golden.origin})",
        outputs=session.outputs,
        policy=parity.policy_of(scheme, golden=True, precision=precision),
    )
    return GoldenCheck(report, changed)
