"""What the raw times say."""

import statistics
from collections.abc import Sequence

import numpy as np

# A percentile is given only where runs lie beyond it: p99 needs a hundred.
_PERCENTILES = {50: 1, 90: 10, 99: 100}


def summary(times_ns: Sequence[int]) -> dict[str, float | int | None]:
    """Returns count, mean, min, p50, p90, p99 and stddev in milliseconds.

    Args:
        times_ns: nanoseconds per run, at least one.

    Returns:
        The figures; null for a percentile that so few runs do not support, and for the standard
        deviation of a single run. No run is left out.
    """
    milliseconds = np.asarray(times_ns, np.float64) / 1e6
    percentiles = {
        f"p{rank}": float(np.percentile(milliseconds, rank)) if len(times_ns) >= needed else None
        for rank, needed in _PERCENTILES.items()
    }
    return {
        "count": len(times_ns),
        "mean": float(milliseconds.mean()),
        "min": float(milliseconds.min()),
        **percentiles,
        "stddev": statistics.stdev(milliseconds) if len(times_ns) > 1 else None,
    }
