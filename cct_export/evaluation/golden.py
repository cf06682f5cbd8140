"""Whether an artifact answers to the golden images of its sidecar what its model answers."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cct_export.evaluation import parity
from cct_export.files import sha256
from cct_export.records import sidecar
from cct_export.runtimes.session import Session, run
from cct_export.specs import Delegation


def judge(session: Session, path: Path, delegation: Delegation) -> dict[str, Any]:
    """Returns as ``parity`` how close the golden logits are, None without a sidecar.

    It is the delegate itself that computes them: a fast one may be wrong. So may a file that
    was changed since it was exported, which ``changed`` tells.

    Args:
        session: on the artifact, wherever it runs.
        path: of the artifact.
        delegation: what runs it; computing in fp16 may be part of it.
    """
    beside = sidecar.read(path, session.contract) if path.is_file() else None
    if beside is None or beside.golden.images.shape[1:] != session.image_shape:
        return {"parity": None, "changed": False}
    found = run(session, beside.golden.images)
    if found.shape != beside.golden.logits.shape:
        return {"parity": None, "changed": False}
    scheme = beside.record["scheme"]
    if scheme == "none" and dict(delegation.options).get("precision") == "fp16":
        scheme = "fp16"  # computing so was asked for
    report = parity.compare(
        beside.golden.logits,
        found,
        scheme,
        names=(beside.record["source"], str(path)),
        images=f"golden images in the sidecar ({beside.golden.origin})",
        policy=parity.policy_of(scheme, golden=True),
    )
    return {"parity": asdict(report), "changed": beside.record["sha256"] != sha256(path)}
