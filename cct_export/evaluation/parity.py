"""Numerical parity: logits compared with the reference, judged by a policy per scheme."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cct_export.bounds import exceeds, falls_short
from cct_export.errors import InvalidArtifact
from cct_export.evaluation.outputs import cut, distances, slots
from cct_export.records import OutputContract, ParityReport
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


# Logits whose number tells that of the classes.
ONE_OUTPUT = (OutputContract("logits", "float32", 0, activation="none"),)
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
    "int4-weight": Policy(23.0, 0.94),
}
# Of what a delegate computes in; bfloat16 has 8 bits of every factor.
PRECISIONS = {"fp16": POLICIES["fp16"], "bf16": Policy(35.0, 0.98)}


def policy_of(scheme: str, *, golden: bool = False, precision: str = "") -> Policy:
    """Returns the policy of a scheme.

    Args:
        scheme: quantization scheme, as the file names it.
        golden: for the few images of a sidecar, where the SQNR scatters and one image is a large
            share of all; no image may differ where the policy allows none.
        precision: what a delegate computes in, where that is less than float32.

    Raises:
        InvalidArtifact: there is no such scheme.
    """
    if scheme not in POLICIES:
        raise InvalidArtifact(
            f"the file or its sidecar names the quantization scheme {scheme!r}, not one of "
            f"{', '.join(POLICIES)}: export it again"
        )
    policy = POLICIES[scheme]
    if precision in PRECISIONS and PRECISIONS[precision].sqnr_db < policy.sqnr_db:
        policy = PRECISIONS[precision]
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


def logits_sqnr_db(
    reference: np.ndarray,
    candidate: np.ndarray,
    outputs: Sequence[OutputContract] = ONE_OUTPUT,
) -> float:
    """Returns the SQNR of logits ``(N, values of all outputs)`` in dB, that of the worst output.

    Each image's are taken minus their mean: the softmax is invariant to that mean; counted as
    signal, a large one would hide any error. Values that are a decision each are taken minus their
    threshold.
    """
    return min(
        sqnr_db(_signal(expected, output), _signal(actual, output, expected))
        for output, expected, actual in _pairs(reference, candidate, outputs)
    )


def compare(
    reference: Logits,
    *,
    candidate: Logits,
    scheme: str,
    names: tuple[str, str],
    images: str,
    outputs: Sequence[OutputContract] = ONE_OUTPUT,
    policy: Policy | None = None,
) -> ParityReport:
    """Compares the logits of two sessions on the same images.

    Args:
        reference: float32 ``(N, values of all outputs)`` of the model.
        candidate: float32 of the same shape of the exported file.
        scheme: quantization scheme of the candidate.
        names: names of reference and candidate, for the report.
        images: where the images are from, for the report.
        outputs: what the logits are of; by default one output with a class per logit.
        policy: the requirements of each output; by default those of the scheme.

    Returns:
        The report of the output that is farthest from the requirements, with what any output
        misses of them.
    """
    policy = policy or policy_of(scheme)
    made = functools.partial(
        ParityReport, reference=names[0], candidate=names[1], scheme=scheme, images=images
    )
    reports = []
    for output, expected, actual in _pairs(reference, candidate, outputs):
        report = made(
            samples=len(expected),
            failures=(),
            output=output.name if len(outputs) > 1 else "",
            **_figures(expected, actual, output, policy),
        )
        reports.append(replace(report, failures=tuple(_failures(report, policy, expected))))
    if len(reports) == 1:
        return reports[0]
    missed = [f"{report.output}: {line}" for report in reports for line in report.failures]
    worst = min(reports, key=lambda report: (report.passed, report.finite, report.sqnr_db))
    return replace(worst, failures=tuple(missed))


def agreeing(
    reference: Logits, candidate: Logits, outputs: Sequence[OutputContract]
) -> NDArray[np.bool_]:
    """Returns for which images every decision is that of the reference, bool ``(N,)``."""
    same = [
        (_classes(expected, output) == _classes(actual, output, expected)).all(axis=1)
        for output, expected, actual in _pairs(reference, candidate, outputs)
    ]
    agrees: NDArray[np.bool_] = np.logical_and.reduce(same)
    return agrees


def decided_by(reference: np.ndarray, output: OutputContract, policy: Policy) -> np.ndarray:
    """Returns which decisions the allowed error cannot change, bool ``(N, decisions)``.

    Args:
        reference: values of the output, ``(N, width)``.
        output: what they are of.
        policy: its bound on the SQNR is the allowed error.
    """
    allowed = np.sqrt(np.mean(_signal(reference, output) ** 2)) * 10 ** (-policy.sqnr_db / 20)
    if output.is_binary:
        # As of the two values of a softmax, which differ by twice their distance from 0.5.
        decided: np.ndarray = 2 * np.abs(distances(reference, output)) > allowed
        return decided
    best_two = np.sort(slots(reference, output), axis=2)[:, :, -2:]
    decided = best_two[:, :, 1] - best_two[:, :, 0] > allowed
    return decided


def _pairs(
    reference: np.ndarray, candidate: np.ndarray, outputs: Sequence[OutputContract]
) -> Iterator[tuple[OutputContract, np.ndarray, np.ndarray]]:
    """Yields every output with its values in the reference and in the candidate."""
    for (output, expected), (_, actual) in zip(
        cut(reference, outputs), cut(candidate, outputs), strict=True
    ):
        yield output, expected, actual


def _figures(
    expected: np.ndarray, actual: np.ndarray, output: OutputContract, policy: Policy
) -> dict[str, Any]:
    """Returns the figures of a report about an output, by field."""
    signal, measured = _signal(expected, output), _signal(actual, output, expected)
    classes, found = _classes(expected, output), _classes(actual, output, expected)
    decided = decided_by(expected, output, policy)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
        norms = np.linalg.norm(signal, axis=1) * np.linalg.norm(measured, axis=1)
        products = np.sum(signal * measured, axis=1)
        cosine = float(np.mean(products / np.maximum(norms, np.finfo(np.float32).tiny)))
        ratio = sqnr_db(signal, measured)
    return {
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "cosine": cosine,
        "sqnr_db": ratio,
        "top1_agreement": float((classes == found)[decided].mean()) if decided.any() else 1.0,
        "decided": int(decided.sum()),
        "finite": bool(np.isfinite(actual).all()),
        "constant": bool((found == found[0]).all()) and _have_several(classes, decided),
    }


def _signal(
    values: np.ndarray, output: OutputContract, reference: np.ndarray | None = None
) -> np.ndarray:
    """Returns what decides, ``(N, width)``: values minus their mean, or minus their threshold."""
    if output.is_binary:
        return distances(values, output, reference=reference).astype(np.float64)
    rows = slots(values, output)
    with np.errstate(invalid="ignore"):
        centered: np.ndarray = rows - rows.mean(axis=2, keepdims=True, dtype=np.float64)
    return centered.reshape(values.shape)


def _classes(
    values: np.ndarray, output: OutputContract, reference: np.ndarray | None = None
) -> np.ndarray:
    """Returns the best class of each slot, or the decision of each value: int ``(N, decisions)``.

    Args:
        values: ``(N, width)``.
        output: what they are of.
        reference: see ``distances``.
    """
    if output.is_binary:
        return (distances(values, output, reference=reference) > 0).astype(int)
    best: np.ndarray = slots(values, output).argmax(2)
    return best


def _have_several(classes: np.ndarray, decided: np.ndarray) -> bool:
    """Returns whether the decided images have several classes; both ``(N, decisions)``."""
    return any(
        len(np.unique(column[counts])) > 1
        for column, counts in zip(classes.T, decided.T, strict=True)
    )


def _failures(report: ParityReport, policy: Policy, reference: np.ndarray) -> Iterator[str]:
    """Yields the requirements that are not met."""
    limit = None if policy.max_abs is None else policy.max_abs * max(1.0, np.abs(reference).max())
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
