"""Numerical parity: logits compared with the reference, judged by a policy per scheme."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cct_export.bounds import exceeds, falls_short
from cct_export.errors import InvalidArtifact
from cct_export.records import ParityReport
from cct_export.runtimes.session import Logits


@dataclass(frozen=True)
class Policy:
    """The requirements of a quantization scheme.

    Attributes:
        sqnr_db: lowest signal to quantization noise ratio in dB.
        agreement: lowest top-1 agreement on decided images, 0 to 1.
        max_abs: largest difference of a logit, relative to max(1, largest |logit|); None for
            schemes that change the weights.
        flips: decided images that may differ, whatever the agreement is.
    """

    sqnr_db: float
    agreement: float
    max_abs: float | None = None
    flips: int = 0


# The bounds hold on a thousand images; on a handful of golden images the figures scatter.
GOLDEN_SLACK_DB = 3.0
GOLDEN_FLIPS = 1

POLICIES = {
    "none": Policy(90.0, 1.0, 1e-4),
    "fp16": Policy(45.0, 0.995),
    "int8-dynamic": Policy(32.0, 0.98),
    "int8": Policy(28.0, 0.98),
    "int8-full": Policy(22.0, 0.96),
    "int16x8": Policy(38.0, 0.99),
    "int4-weight": Policy(20.0, 0.94),
}


def policy_of(scheme: str, *, golden: bool = False) -> Policy:
    """Returns the policy of a scheme.

    Args:
        scheme: quantization scheme, as the file names it.
        golden: for the few images of a sidecar, where the SQNR scatters and one image is a large
            share of all; no image may differ where the policy allows none.

    Raises:
        InvalidArtifact: there is no such scheme.
    """
    if scheme not in POLICIES:
        raise InvalidArtifact(
            f"the file or its sidecar names the quantization scheme {scheme!r}, not one of "
            f"{', '.join(POLICIES)}: export it again"
        )
    policy = POLICIES[scheme]
    if not golden:
        return policy
    flips = GOLDEN_FLIPS if policy.agreement < 1 else 0
    return replace(policy, sqnr_db=policy.sqnr_db - GOLDEN_SLACK_DB, flips=flips)


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Returns 10·log10(Σ reference² / Σ (reference − candidate)²), infinite if they are equal."""
    reference = reference.astype(np.float64)
    noise = float(np.sum((reference - candidate.astype(np.float64)) ** 2))
    signal = float(np.sum(reference**2))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def logits_sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Returns the SQNR of logits ``(N, classes)`` in dB, each image's minus their mean.

    The softmax is invariant to that mean; counted as signal, a large one would hide any error.
    """
    return sqnr_db(_centered(reference), _centered(candidate))


def compare(
    reference: Logits,
    *,
    candidate: Logits,
    scheme: str,
    names: tuple[str, str],
    images: str,
    policy: Policy | None = None,
) -> ParityReport:
    """Compares the logits of two sessions on the same images.

    Args:
        reference: float32 ``(N, classes)`` of the model.
        candidate: float32 of the same shape of the exported file.
        scheme: quantization scheme of the candidate.
        names: names of reference and candidate, for the report.
        images: where the images are from, for the report.
        policy: the requirements; by default those of the scheme.

    Returns:
        The report, with the requirements that are not met.
    """
    policy = policy or policy_of(scheme)
    decided = _decided(reference, policy)
    signal, measured = _centered(reference), _centered(candidate)
    same_class = reference.argmax(1) == candidate.argmax(1)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
        norms = np.linalg.norm(signal, axis=1) * np.linalg.norm(measured, axis=1)
        products = np.sum(signal * measured, axis=1)
        cosine = float(np.mean(products / np.maximum(norms, np.finfo(np.float32).tiny)))
        ratio = sqnr_db(signal, measured)
    report = ParityReport(
        reference=names[0],
        candidate=names[1],
        scheme=scheme,
        images=images,
        samples=len(reference),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        cosine=cosine,
        sqnr_db=ratio,
        top1_agreement=float(same_class[decided].mean()) if decided.any() else 1.0,
        decided=int(decided.sum()),
        finite=bool(np.isfinite(candidate).all()),
        constant=_is_constant(candidate) and not _is_constant(reference),
        failures=(),
    )
    limit = None if policy.max_abs is None else policy.max_abs * max(1.0, np.abs(reference).max())
    return replace(report, failures=tuple(_failures(report, policy, limit)))


def _centered(logits: np.ndarray) -> np.ndarray:
    """Returns the logits minus their mean over the classes."""
    with np.errstate(invalid="ignore"):
        centered: np.ndarray = logits - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    return centered


def _is_constant(logits: Logits) -> bool:
    """Returns whether all images have the same best class."""
    return len(np.unique(logits.argmax(1))) == 1


def _decided(reference: Logits, policy: Policy) -> np.ndarray:
    """Returns which images, bool ``(N,)``, have a best class that the allowed error keeps."""
    allowed = np.sqrt(np.mean(_centered(reference) ** 2)) * 10 ** (-policy.sqnr_db / 20)
    best_two = np.sort(reference, axis=1)[:, -2:]
    decided: np.ndarray = best_two[:, 1] - best_two[:, 0] > allowed
    return decided


def _failures(report: ParityReport, policy: Policy, limit: float | None) -> Iterator[str]:
    """Yields the requirements that are not met; ``limit`` bounds the difference of a logit."""
    if not report.finite:
        yield "the logits hold NaN or infinity"
    if report.constant:
        yield "it predicts one class for every image"
    if falls_short(report.sqnr_db, policy.sqnr_db):
        yield f"SQNR {report.sqnr_db:.1f} dB is below {policy.sqnr_db:.0f} dB"
    # Where every logit has a bound, as in float32, parity does not depend on the agreement.
    if not report.decided and limit is None:
        yield "no image has a clear best class: top-1 agreement is undefined"
    flips = (1 - report.top1_agreement) * report.decided
    if falls_short(report.top1_agreement, policy.agreement) and exceeds(flips, policy.flips + 0.5):
        yield f"top-1 agreement {report.top1_agreement:.4f} is below {policy.agreement:.4f}"
    if limit is not None and exceeds(report.max_abs, limit):
        yield f"a logit differs by {report.max_abs:.2e}, more than {limit:.2e}"
