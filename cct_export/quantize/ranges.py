"""From the values of a tensor to the grid that stores them: four ways to choose the range."""

from collections.abc import Callable

import numpy as np

from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array
from cct_export.quantize.statistics import Distribution

Range = tuple[float, float]
# Share of the values that percentile keeps, half of the rest at each end.
PERCENTILE = 0.9999
# How far mse shrinks a range, in steps.
_SHRINKING = np.linspace(1.0, 0.3, 71)
# 16 bits have room for values that no calibration image had.
_HEADROOM = 2.0


def min_max(values: Distribution, bits: int) -> Range:
    """Returns the smallest and the largest value: nothing is clipped."""
    return values.low, values.high


def percentile(values: Distribution, bits: int) -> Range:
    """Returns the range that ``PERCENTILE`` of the values lie in."""
    cumulative = np.cumsum(values.counts) / values.counts.sum()
    cut = (1 - PERCENTILE) / 2
    edges = np.linspace(values.low, values.high, len(values.counts) + 1)
    first = int(np.searchsorted(cumulative, cut))
    last = int(np.searchsorted(cumulative, 1 - cut))
    return float(edges[first]), float(edges[min(last + 1, len(edges) - 1)])


def mse(values: Distribution, bits: int) -> Range:
    """Returns the range with the least squared error of clipping and rounding together.

    The upper end is drawn in first, then the lower one.
    """

    def best(candidates: list[Range]) -> Range:
        return min(candidates, key=lambda ends: squared_error(values, grid(ends, bits)))

    _, high = best([(values.low, values.high * factor) for factor in _SHRINKING])
    return best([(values.low * factor, high) for factor in _SHRINKING])


def entropy(values: Distribution, bits: int) -> Range:
    """Returns the range whose quantized distribution diverges least from the true one.

    Kullback-Leibler divergence, as TensorRT's calibration takes it (S. Migacz, "8-bit inference
    with TensorRT", GTC 2017).
    """
    candidates = _shrunk(values)
    return candidates[int(np.argmin([_divergence(values, c, bits) for c in candidates]))]


METHODS: dict[str, Callable[[Distribution, int], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def grid(range: Range, bits: int, symmetric: bool = False) -> QuantParams:
    """Returns the integers for a range; 0 always has one.

    Args:
        range: smallest and largest value.
        bits: 8 or 16; 16 bits are symmetric, with room beyond the range.
        symmetric: whether 0 stands for 0.
    """
    low, high = min(range[0], 0.0), max(range[1], 0.0)
    if bits == 16 or symmetric:
        top = 2 ** (bits - 1) - 1
        room = _HEADROOM if bits == 16 else 1.0
        largest = max(-low, high) or 1.0
        return QuantParams(np.array(largest * room / top), 0, -top - 1, top)
    scale = (high - low) / 255 or 1.0
    return QuantParams(np.array(scale), round(-128 - low / scale), -128, 127)


def squared_error(values: Distribution, grid: QuantParams) -> float:
    """Returns the mean squared error of a tensor on a grid."""
    centres = values.centres
    weights = values.counts / values.counts.sum()
    inside = (centres >= grid.smallest) & (centres <= grid.largest)
    # Bins can be as wide as the grid's steps: inside, the error is that of rounding.
    rounding = float(grid.scale) ** 2 / 12
    clipped = np.clip(centres, grid.smallest, grid.largest) - centres
    return float(np.sum(weights * np.where(inside, rounding, clipped**2)))


def clipped_share(values: Distribution, grid: QuantParams) -> float:
    """Returns the share of the values that lie beyond a grid by more than half a step."""
    half = float(grid.scale) / 2
    outside = (values.centres < grid.smallest - half) | (values.centres > grid.largest + half)
    return float(values.counts[outside].sum() / values.counts.sum())


def _shrunk(values: Distribution) -> list[Range]:
    return [(values.low * factor, values.high * factor) for factor in _SHRINKING]


def _divergence(values: Distribution, range: Range, bits: int) -> float:
    low, high = range
    centres = values.centres
    inside = (centres >= low) & (centres <= high)
    counts = values.counts.astype(np.float64)
    if not counts[inside].any():
        return float("inf")
    true = np.where(inside, counts, 0.0)
    # What lies beyond is clipped to the ends.
    ends = np.flatnonzero(inside)[[0, -1]]
    true[ends[0]] += counts[: ends[0]].sum()
    true[ends[1]] += counts[ends[1] + 1 :].sum()
    levels = 2 ** min(bits, 8)
    level = np.clip(((centres - low) / (high - low) * levels).astype(int), 0, levels - 1)
    held = inside & (counts > 0)
    totals = np.bincount(level[held], counts[held], levels)
    sizes = np.bincount(level[held], minlength=levels)
    coarse: Array = np.where(held, totals[level] / np.maximum(sizes[level], 1), 0.0)
    p, q = true / true.sum(), coarse / max(coarse.sum(), 1.0)
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))
