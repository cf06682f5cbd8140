"""Is the exported file still the same model? Logits against logits, by a policy per scheme."""

from dataclasses import dataclass, replace

import numpy as np

from cct_export.errors import InvalidArtifact
from cct_export.records import ParityReport
from cct_export.runtimes.session import Logits


@dataclass(frozen=True)
class Policy:
    """What a scheme has to reach.

    Attributes:
        sqnr_db: signal to quantization noise ratio at least, in dB.
        agreement: top-1 agreement on decided images at least, 0 to 1.
        max_abs: largest difference of a logit at most, relative to max(1, largest |logit|); None
            for schemes that change the weights.
        flips: decided images that may differ whatever share of all they are.
    """

    sqnr_db: float
    agreement: float
    max_abs: float | None = None
    flips: int = 0


# What a handful of golden images may miss of the bounds that a thousand images reached.
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


def policy_of(scheme: str, golden: bool = False) -> Policy:
    """Returns what ``scheme`` has to reach.

    Args:
        scheme: quantization scheme, as a file says it.
        golden: on the few images of a sidecar, where the noise ratio scatters and one image is a
            large share; no image may differ where the policy lets none.

    Raises:
        InvalidArtifact: there is no such scheme.
    """
    if scheme not in POLICIES:
        raise InvalidArtifact(
            f"the file says its scheme is {scheme!r}, which is none of {', '.join(POLICIES)}"
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
    """Returns ``sqnr_db`` of logits, each image's minus their mean, which a softmax ignores."""
    return sqnr_db(_centred(reference), _centred(candidate))


def compare(
    reference: Logits,
    candidate: Logits,
    scheme: str,
    names: tuple[str, str],
    images: str,
    policy: Policy | None = None,
) -> ParityReport:
    """Compares the logits of two sessions on the same images.

    Args:
        reference: float32 ``(N, classes)``, the model's own.
        candidate: float32 of the same shape, the exported file's.
        scheme: quantization scheme of the candidate.
        names: names of reference and candidate, for the report.
        images: where the images are from, for the report.
        policy: what to demand; by default that of the scheme.

    Returns:
        The report; it holds whether the policy was met, and why not.
    """
    policy = policy or policy_of(scheme)
    finite = bool(np.isfinite(candidate).all())
    decided = _decided(reference, policy)
    signal, measured = _centred(reference), _centred(candidate)
    same = reference.argmax(1) == candidate.argmax(1)
    agreement = float(same[decided].mean()) if decided.any() else 1.0
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
        lengths = np.linalg.norm(signal, axis=1) * np.linalg.norm(measured, axis=1)
        products = np.sum(signal * measured, axis=1)
        cosine = float(np.mean(products / np.maximum(lengths, np.finfo(np.float32).tiny)))
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
        top1_agreement=agreement,
        decided=int(decided.sum()),
        finite=finite,
        constant=_one_class(candidate) and not _one_class(reference),
        failures=(),
    )
    limit = None if policy.max_abs is None else policy.max_abs * max(1.0, np.abs(reference).max())
    return _judged(report, policy, limit)


def _centred(logits: np.ndarray) -> np.ndarray:
    """Returns the logits minus their mean over the classes.

    A softmax does not see that mean; counted as signal, a large one would hide any error.
    """
    with np.errstate(invalid="ignore"):
        centred: np.ndarray = logits - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    return centred


def _one_class(logits: Logits) -> bool:
    return len(np.unique(logits.argmax(1))) == 1


def _decided(reference: Logits, policy: Policy) -> np.ndarray:
    """Tells the images whose best class the error that the scheme may have does not decide."""
    allowed = np.sqrt(np.mean(_centred(reference) ** 2)) * 10 ** (-policy.sqnr_db / 20)
    best = np.sort(reference, axis=1)[:, -2:]
    margins: np.ndarray = best[:, 1] - best[:, 0] > allowed
    return margins


def _judged(report: ParityReport, policy: Policy, limit: float | None) -> ParityReport:
    failures = []
    if not report.finite:
        failures.append("the logits hold NaN or infinity")
    if report.constant:
        failures.append("it answers one class for every image")
    # Written as "not (reached)" so that a NaN fails.
    if not report.sqnr_db >= policy.sqnr_db:
        failures.append(f"SQNR {report.sqnr_db:.1f} dB is below {policy.sqnr_db:.0f} dB")
    # Where every logit has a bound, as in float32, that and the noise ratio are proof enough.
    if not report.decided and limit is None:
        failures.append("no image has a best class that stands out: agreement says nothing")
    flips = round((1 - report.top1_agreement) * report.decided)
    if not report.top1_agreement >= policy.agreement and flips > policy.flips:
        failures.append(
            f"top-1 agreement {report.top1_agreement:.4f} is below {policy.agreement:.4f}"
        )
    if limit is not None and not report.max_abs <= limit:
        failures.append(f"a logit differs by {report.max_abs:.2e}, more than {limit:.2e}")
    return replace(report, failures=tuple(failures))
