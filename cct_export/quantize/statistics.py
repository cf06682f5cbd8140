"""What the tensors of a plan hold over calibration images: ranges, histograms, second moments."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cct_export.data import sampling
from cct_export.data.dataset import Images
from cct_export.errors import InvalidData
from cct_export.files import replacing
from cct_export.graph.interpret import windows_of
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import tensors
from cct_export.graph.steps import Array, Conv, Dense, Step

BINS = 2048
BATCH = 25
# Values of a tensor, and rows of a step's input, that one image gives at most; the rest is left
# out, evenly. A wide step's rows cost more and are fewer.
MOST_VALUES = 2**16
MOST_ROWS = 1024
_USUAL_INPUTS = 1152
# What a tensor holds for one image of random pixels tells whether a record fits a plan.
_PROBE_TOLERANCE = 1e-4


@dataclass(eq=False)
class Distribution:
    """The values of one tensor.

    Attributes:
        low: smallest value.
        high: largest value.
        counts: histogram of ``BINS`` equal bins from ``low`` to ``high``.
    """

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centres(self) -> Array:
        """The middle of every bin."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[1:] + edges[:-1]) / 2


@dataclass(eq=False)
class Statistics:
    """What was seen of the tensors of a plan.

    Attributes:
        origin: which images, for people.
        samples: how many.
        distributions: by tensor.
        moments: by step with weights: the mean of ``x xᵀ`` over the rows x that its weights
            multiply, ``(inputs, inputs)``.
        probe: by tensor: mean and mean square for one image of random pixels.
    """

    origin: str
    samples: int
    distributions: dict[str, Distribution] = field(default_factory=dict)
    moments: dict[str, Array] = field(default_factory=dict)
    probe: dict[str, tuple[float, float]] = field(default_factory=dict)

    def fits(self, plan: Plan, names: Iterable[str], learned: Iterable[str] = ()) -> bool:
        """Whether these statistics are of the tensors of ``plan``, and have all that are needed.

        Args:
            plan: what is to be quantized.
            names: tensors whose ranges are needed.
            learned: outputs of the steps whose inputs' second moments are.
        """
        found = probe(plan)
        return all(self._has_moment(plan, name) for name in learned) and all(
            name in self.distributions
            and name in self.probe
            and np.allclose(self.probe[name], found[name], rtol=_PROBE_TOLERANCE, atol=1e-9)
            for name in names
        )

    def _has_moment(self, plan: Plan, output: str) -> bool:
        step = plan.producer(output)
        assert isinstance(step, Conv | Dense), "only weights have inputs to be rounded for"
        inputs = step.kernel.size // step.kernel.shape[-1]
        return output in self.moments and len(self.moments[output]) == inputs


def gather(plan: Plan, images: Images, origin: str) -> Statistics:
    """Runs images through a plan.

    Args:
        plan: of steps that formats have.
        images: uint8 ``(N, H, W, C)``.
        origin: which images, for people.
    """
    statistics = Statistics(origin, len(images), probe=probe(plan))
    extremes: dict[str, tuple[float, float]] = {}

    def widen(name: str, x: Array) -> None:
        low, high = extremes.get(name, (np.inf, -np.inf))
        extremes[name] = (min(low, float(x.min())), max(high, float(x.max())))

    def count(name: str, x: Array) -> None:
        distribution = statistics.distributions[name]
        distribution.counts += _counted(x, distribution.low, distribution.high)
        for step in plan.consumers(name):
            if isinstance(step, Conv | Dense):
                rows = rows_of(step, x)
                sums = statistics.moments.get(step.output, 0)
                statistics.moments[step.output] = sums + rows.T @ rows / len(rows) * len(x)

    _see(plan, images, widen)
    for name, (low, high) in extremes.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InvalidData(f"{name} is not finite for the calibration images ({origin})")
        # A histogram needs some width, even of a tensor that never varies.
        counts = np.zeros(BINS, np.int64)
        statistics.distributions[name] = Distribution(low, max(high, low + 1e-6), counts)
    _see(plan, images, count)
    for name in statistics.moments:
        statistics.moments[name] = statistics.moments[name] / len(images)
    return statistics


def _see(plan: Plan, images: Images, seen: Callable[[str, Array], None]) -> None:
    for start in range(0, len(images), BATCH):
        tensors(plan, images[start : start + BATCH], seen)


def rows_of(step: Step, x: Array) -> Array:
    """Returns the rows that the weights of a step multiply, ``(rows, inputs)``.

    Args:
        step: a convolution or dense layer.
        x: its input, with the batch axis.
    """
    if isinstance(step, Conv):
        seen = windows_of(step, x).transpose(0, 1, 2, 4, 5, 3)
        rows = seen.reshape(-1, np.prod(seen.shape[3:]))
    else:
        rows = x.reshape(-1, x.shape[-1])
    share = min(1.0, (_USUAL_INPUTS / rows.shape[1]) ** 2)
    stride = math.ceil(len(rows) / (MOST_ROWS * share * len(x)))
    return rows[::stride]


def _counted(x: Array, low: float, high: float) -> NDArray[np.int64]:
    """Returns the histogram of some values: all of a small tensor, else a random part."""
    values = x.reshape(-1)
    most = MOST_VALUES * len(x)
    if len(values) > most:
        # Equal steps would see some channels only.
        values = np.random.default_rng(len(values)).choice(values, most)
    counts: NDArray[np.int64] = np.histogram(values, BINS, (low, high))[0]
    return counts


def probe(plan: Plan) -> dict[str, tuple[float, float]]:
    """Returns mean and mean square of every tensor for one image of random pixels."""
    found = {}

    def note(name: str, x: Array) -> None:
        found[name] = (float(x.mean()), float((x**2).mean()))

    tensors(plan, sampling.timing_images(plan.image_shape, 1), note)  # type: ignore[arg-type]
    return found


def save(statistics: Statistics, path: Path) -> None:
    """Writes a calibration record, suffix ``.npz``, in one step; raises ``OutputError``.

    Second moments are stored as correlations in float16, half of each matrix.
    """
    arrays: dict[str, Any] = {}
    names = list(statistics.distributions)
    for index, name in enumerate(names):
        arrays[f"counts_{index}"] = statistics.distributions[name].counts.astype(np.uint32)
    steps = list(statistics.moments)
    for index, name in enumerate(steps):
        moment = statistics.moments[name]
        spread = np.sqrt(np.maximum(np.diag(moment), 1e-30))
        correlation = moment / np.outer(spread, spread)
        arrays[f"spread_{index}"] = spread.astype(np.float32)
        arrays[f"correlation_{index}"] = correlation[np.triu_indices(len(moment), 1)].astype(
            np.float16
        )
    about = {
        "origin": statistics.origin,
        "samples": statistics.samples,
        "tensors": names,
        "ranges": [[d.low, d.high] for d in statistics.distributions.values()],
        "steps": steps,
        "probe": statistics.probe,
    }
    with replacing(path) as temporary:
        np.savez_compressed(temporary, about=np.asarray(json.dumps(about)), **arrays)


def load(path: Path) -> Statistics:
    """Reads a calibration record.

    Raises:
        InvalidData: it is none, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            distributions = {
                name: Distribution(low, high, file[f"counts_{index}"].astype(np.int64))
                for index, (name, (low, high)) in enumerate(
                    zip(about["tensors"], about["ranges"], strict=True)
                )
            }
            moments = {
                name: _moment(file[f"spread_{index}"], file[f"correlation_{index}"])
                for index, name in enumerate(about["steps"])
            }
            probe = {name: (float(a), float(b)) for name, (a, b) in about["probe"].items()}
            found = Statistics(
                str(about["origin"]), int(about["samples"]), distributions, moments, probe
            )
            _check(found)
            return found
    except Exception as error:  # a damaged archive raises anything, zlib.error above all
        raise InvalidData(f"{path} is no calibration record: {error}") from error


def _check(statistics: Statistics) -> None:
    """Raises ``ValueError`` for what no images can have given."""
    for name, values in statistics.distributions.items():
        known = math.isfinite(values.low) and math.isfinite(values.high)
        if not (known and values.low < values.high and values.counts.sum() > 0):
            raise ValueError(f"it knows no range of {name}")
    for name, moment in statistics.moments.items():
        spread = np.diag(moment)
        if not np.isfinite(moment).all() or (moment**2 > 1.01 * np.outer(spread, spread)).any():
            raise ValueError(f"what it has of {name} are no second moments")


def _moment(spread: np.ndarray, correlation: np.ndarray) -> Array:
    half = np.zeros((len(spread), len(spread)))
    half[np.triu_indices(len(spread), 1)] = correlation
    whole: Array = half + half.T + np.eye(len(spread))
    return whole * np.outer(spread, spread).astype(np.float64)
