"""Statistics of right and wrong answers, in the standard library: a Raspberry Pi has no SciPy."""

import math
from statistics import NormalDist

import numpy as np

from cct_export.records import PairedAccuracy

CONFIDENCE = 0.95
BINS = 15


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Returns the score interval of a share at 95 % (Wilson, JASA 22, 1927).

    Args:
        hits: 0 to ``total``.
        total: at least one.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = hits / total
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At both ends one bound is the end itself, which rounding would miss.
    low = 0.0 if hits == 0 else (middle - reach) / scale
    high = 1.0 if hits == total else (middle + reach) / scale
    return low, high


def calibration_error(logits: np.ndarray, right: np.ndarray) -> float:
    """Returns the expected calibration error over 15 equal bins (arXiv:1706.04599, equation 3).

    Args:
        logits: finite ``(N, classes)``.
        right: bool ``(N,)``.

    Returns:
        The mean distance of accuracy and confidence (softmax of the best class), 0 to 1; 0 for
        no images.
    """
    if not len(logits):
        return 0.0
    reals = np.asarray(logits, np.float64)
    shares = np.exp(reals - reals.max(axis=1, keepdims=True))
    confidence = shares.max(axis=1) / shares.sum(axis=1)
    bins = np.ceil(confidence * BINS).astype(int).clip(1, BINS) - 1
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(reals))


def paired(reference_right: np.ndarray, candidate_right: np.ndarray) -> PairedAccuracy:
    """Compares two models on the same images (McNemar, Psychometrika 12, 1947; the exact test).

    Args:
        reference_right: bool ``(N,)``.
        candidate_right: bool ``(N,)``, of the same images.

    Returns:
        The comparison.
    """
    only_reference = int((reference_right & ~candidate_right).sum())
    only_candidate = int((candidate_right & ~reference_right).sum())
    apart, fewer = only_reference + only_candidate, min(only_reference, only_candidate)
    tail = sum(math.comb(apart, k) for k in range(fewer + 1))
    return PairedAccuracy(
        reference_top1=float(reference_right.mean()),
        only_reference=only_reference,
        only_candidate=only_candidate,
        # Whole numbers until the end: 2 to the 5,000 is no float.
        p_value=min(1.0, (2 * tail) / (1 << apart)),
    )
