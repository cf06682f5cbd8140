"""Activation ranges: four methods to choose them from a histogram of calibration values."""

from collections.abc import Callable

import numpy as np

from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array
from cct_export.quantize.params import Range, activation_params
from cct_export.quantize.statistics import Histogram

# Share of the values inside the range of percentile; half of the rest is clipped at each end.
PERCENTILE = 0.9999
# Factors of the full range that mse and entropy try.
_SHRINKING = np.linspace(1.0, 0.3, 71)


def min_max(histogram: Histogram, bits: int) -> Range:
    """Returns the smallest and the largest value: nothing is clipped."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, bits: int) -> Range:
    """Returns the range that contains ``PERCENTILE`` of the values."""
    cumulative = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (1 - PERCENTILE) / 2
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    first = int(np.searchsorted(cumulative, cut))
    last = int(np.searchsorted(cumulative, 1 - cut))
    return float(edges[first]), float(edges[min(last + 1, len(edges) - 1)])


def mse(histogram: Histogram, bits: int) -> Range:
    """Returns the range with the least mean squared error of clipping and rounding together.

    It shrinks the upper end first, then the lower one.
    """

    def best(ranges: list[Range]) -> Range:
        return min(ranges, key=lambda r: squared_error(histogram, activation_params(r, bits)))

    _, high = best([(histogram.low, histogram.high * factor) for factor in _SHRINKING])
    return best([(histogram.low * factor, high) for factor in _SHRINKING])


def entropy(histogram: Histogram, bits: int) -> Range:
    """Returns the range whose quantized distribution diverges least from the original.

    Kullback-Leibler divergence, as in TensorRT's calibration (S. Migacz, "8-bit inference with
    TensorRT", GTC 2017).
    """
    ranges = [(histogram.low * factor, histogram.high * factor) for factor in _SHRINKING]
    return ranges[int(np.argmin([_divergence(histogram, r, bits) for r in ranges]))]


METHODS: dict[str, Callable[[Histogram, int], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def squared_error(histogram: Histogram, params: QuantParams) -> float:
    """Returns the mean squared error of quantizing a tensor."""
    centres = histogram.centres
    weights = histogram.counts / histogram.counts.sum()
    inside = (centres >= params.min_value) & (centres <= params.max_value)
    # Bins can be as wide as the scale: inside the range, the error is that of uniform rounding.
    rounding = float(params.scale) ** 2 / 12
    clipping = np.clip(centres, params.min_value, params.max_value) - centres
    return float(np.sum(weights * np.where(inside, rounding, clipping**2)))


def clipped_share(histogram: Histogram, params: QuantParams) -> float:
    """Returns the share of values that are clipped, by more than rounding would move them."""
    half = float(params.scale) / 2
    low, high = params.min_value - half, params.max_value + half
    clipped = (histogram.centres < low) | (histogram.centres > high)
    return float(histogram.counts[clipped].sum() / histogram.counts.sum())


def _divergence(histogram: Histogram, range: Range, bits: int) -> float:
    """Returns the Kullback-Leibler divergence of the quantized from the clipped distribution."""
    low, high = range
    centres = histogram.centres
    inside = (centres >= low) & (centres <= high)
    counts = histogram.counts.astype(np.float64)
    if not counts[inside].any():
        return float("inf")
    clipped = np.where(inside, counts, 0.0)
    # Values beyond the range count at its ends.
    first, last = np.flatnonzero(inside)[[0, -1]]
    clipped[first] += counts[:first].sum()
    clipped[last] += counts[last + 1 :].sum()
    levels = 2 ** min(bits, 8)
    level = np.clip(((centres - low) / (high - low) * levels).astype(int), 0, levels - 1)
    occupied = inside & (counts > 0)
    totals = np.bincount(level[occupied], counts[occupied], levels)
    sizes = np.bincount(level[occupied], minlength=levels)
    quantized: Array = np.where(occupied, totals[level] / np.maximum(sizes[level], 1), 0.0)
    p, q = clipped / clipped.sum(), quantized / max(quantized.sum(), 1.0)
    support = p > 0
    return float(np.sum(p[support] * np.log(p[support] / np.maximum(q[support], 1e-12))))
