"""Calibration: ranges, histograms and second moments of a plan's tensors over images."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cct_export import memory
from cct_export.data import sampling
from cct_export.data.dataset import Images
from cct_export.errors import InvalidData
from cct_export.files import replacing
from cct_export.graph.interpret import patches
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import evaluate
from cct_export.graph.steps import Array, Conv, Dense, Step
from cct_export.records.encoding import from_json
from cct_export.specs.progress import CountProgress, no_progress
from cct_export.untrusted import Malformed, read_npz, refusing

BINS = 2048
# Images that are computed at a time, and values of their largest tensor, 16 MiB: of large images
# fewer.
BATCH = 25
_BATCH_VALUES = 2**21
# Between these float32 has the squares of values, and sums of millions of them.
_SQUARES_FIT = (1e-12, 1e15)
# Rows of second moments that are computed at a time.
_MOMENT_ROWS = 1152
# Values of a tensor, and rows of a step's input, that one image contributes at most. Of more values
# some are drawn at random, of rows some are skipped evenly. Rows of a wide input cost more, so it
# contributes fewer.
MAX_VALUES = 2**16
SAMPLED_VALUES = 2**14
MAX_ROWS = 1024
_USUAL_INPUTS = 1152
# Weights with more inputs have no second moments: a flattened feature map's would fill the memory.
MAX_INPUTS = 4096
# A record fits a plan if the moments of its tensors for one random image agree so closely.
_PROBE_TOLERANCE = 1e-4


@dataclass(eq=False)
class Histogram:
    """The distribution of one tensor's values.

    Attributes:
        low: smallest value.
        high: largest value.
        counts: of ``BINS`` equal bins from ``low`` to ``high``.
    """

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centres(self) -> Array:
        """The centre of every bin."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[1:] + edges[:-1]) / 2


@dataclass(eq=False)
class Statistics:
    """Calibration statistics of a plan's tensors.

    Attributes:
        origin: which images, for people.
        samples: number of images.
        histograms: by tensor.
        second_moments: by step with weights: the mean of ``x xᵀ`` over the rows x that its weights
            multiply, ``(inputs, inputs)``.
        probe: by tensor: mean and mean square for one image of random pixels.
    """

    origin: str
    samples: int
    histograms: dict[str, Histogram] = field(default_factory=dict)
    second_moments: dict[str, Array] = field(default_factory=dict)
    probe: dict[str, tuple[float, float]] = field(default_factory=dict)

    def fits(self, plan: Plan, tensors: Iterable[str], weighted: Iterable[str] = ()) -> bool:
        """Returns whether these are statistics of ``plan`` and complete.

        Args:
            plan: the plan to quantize.
            tensors: tensors whose histograms are needed.
            weighted: outputs of the steps whose second moments are needed.
        """
        expected = probe(plan)
        return all(self._has_moments(plan.producer(name)) for name in weighted) and all(
            name in self.histograms
            and name in self.probe
            and np.allclose(self.probe[name], expected[name], rtol=_PROBE_TOLERANCE, atol=1e-9)
            for name in tensors
        )

    def _has_moments(self, step: Step | None) -> bool:
        if not isinstance(step, Conv | Dense) or step.output not in self.second_moments:
            return False
        return len(self.second_moments[step.output]) == _inputs(step)


def has_moments(step: Step) -> bool:
    """Returns whether calibration collects second moments for a step."""
    return isinstance(step, Conv | Dense) and _inputs(step) <= MAX_INPUTS


def _inputs(step: Conv | Dense) -> int:
    return int(step.kernel.size // step.kernel.shape[-1])


def collect(
    plan: Plan, images: Images, origin: str, progress: CountProgress = no_progress
) -> Statistics:
    """Calibrates a plan on images.

    Args:
        plan: in primitive steps.
        images: uint8 ``(N, H, W, C)``.
        origin: which images, for people.
        progress: called with the number of images that are done, and of all.

    Raises:
        InvalidData: a tensor is not finite.
    """
    statistics = Statistics(origin, len(images), probe=probe(plan))
    ranges: dict[str, tuple[float, float]] = {}

    def observe_range(name: str, x: Array) -> None:
        low, high = ranges.get(name, (np.inf, -np.inf))
        ranges[name] = (min(low, float(x.min())), max(high, float(x.max())))

    def observe_values(name: str, x: Array) -> None:
        histogram = statistics.histograms[name]
        histogram.counts += _counts(x, histogram.low, histogram.high)
        for step in plan.consumers(name):
            if isinstance(step, Conv | Dense) and has_moments(step):
                sums = statistics.second_moments
                if step.output not in sums:
                    sums[step.output] = _no_moments(step, *ranges[name])
                _add_moments(sums[step.output], input_rows(step, x), len(x))

    count = len(images)
    # Two passes over the images: a histogram needs the range first.
    _observe(plan, images, observe_range, lambda done: progress(done // 2, count))
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InvalidData(f"{name} is not finite for the calibration images ({origin})")
        # A histogram needs some width, even that of a constant tensor.
        counts = np.zeros(BINS, np.int64)
        statistics.histograms[name] = Histogram(low, max(high, low + 1e-6), counts)
    _observe(plan, images, observe_values, lambda done: progress((count + done) // 2, count))
    for name in statistics.second_moments:
        statistics.second_moments[name] /= len(images)
    return statistics


def _no_moments(step: Conv | Dense, low: float, high: float) -> Array:
    """Returns the zeros that the second moments of a step's input are added to.

    They are float32 where squares of the values are in its range: its rounding is far below the
    damping of GPTQ, and the moments of a large model would be larger than its weights.
    """
    inputs, largest = _inputs(step), max(abs(low), abs(high))
    narrow = _SQUARES_FIT[0] < largest < _SQUARES_FIT[1]
    return np.zeros((inputs, inputs), np.float32 if narrow else np.float64)


def _add_moments(sums: Array, rows: Array, images: int) -> None:
    """Adds the second moments of a step's input rows, which are of so many images."""
    for start in range(0, len(sums), _MOMENT_ROWS):
        part = slice(start, start + _MOMENT_ROWS)
        moments = rows[:, part].T @ rows
        moments *= images / len(rows)
        sums[part] += moments


def _observe(
    plan: Plan,
    images: Images,
    observer: Callable[[str, Array], None],
    progress: Callable[[int], None],
) -> None:
    batch = batch_size(plan)
    for start in range(0, len(images), batch):
        evaluate(plan, images[start : start + batch], observer)
        memory.give_back()
        progress(min(start + batch, len(images)))


def batch_size(plan: Plan) -> int:
    """Returns how many images are computed at a time."""
    largest = max(map(math.prod, plan.shapes.values()))
    return max(1, min(BATCH, _BATCH_VALUES // largest))


def input_rows(step: Conv | Dense, x: Array) -> Array:
    """Returns the rows that the weights of a step multiply, evenly subsampled.

    Args:
        step: a convolution or dense layer.
        x: its input, with the batch axis.

    Returns:
        ``(rows, inputs)``.
    """
    windows = patches(step, x).transpose(0, 1, 2, 4, 5, 3) if isinstance(step, Conv) else x
    positions = windows.shape[: x.ndim - 1]
    count = math.prod(positions)
    share = min(1.0, (_USUAL_INPUTS / _inputs(step)) ** 2)
    stride = math.ceil(count / (MAX_ROWS * share * len(x)))
    # Only these are copied: all windows together would be larger than the input by their size.
    chosen = windows[np.unravel_index(np.arange(0, count, stride), positions)]
    return chosen.reshape(len(chosen), -1)


def _counts(x: Array, low: float, high: float) -> NDArray[np.int64]:
    """Returns the histogram of all values of a small tensor, of a random sample of a large one."""
    values = x.reshape(-1)
    if len(values) > MAX_VALUES * len(x):
        # Sampling at equal steps would miss channels.
        values = np.random.default_rng(len(values)).choice(values, SAMPLED_VALUES * len(x))
    counts: NDArray[np.int64] = np.histogram(values, BINS, (low, high))[0]
    return counts


def probe(plan: Plan) -> dict[str, tuple[float, float]]:
    """Returns mean and mean square of every tensor for one image of random pixels."""
    moments = {}

    def observe(name: str, x: Array) -> None:
        moments[name] = (float(x.mean()), float((x**2).mean()))

    evaluate(plan, sampling.timing_images(plan.image_shape, 1), observe)
    return moments


@dataclass(frozen=True)
class _About:
    """The fields of a calibration record that are no arrays; ``steps`` have second moments."""

    origin: str
    samples: int
    tensors: list[str]
    ranges: list[tuple[float, float]]
    steps: list[str]
    probe: dict[str, tuple[float, float]]


def save(records: Sequence[Statistics], path: Path) -> None:
    """Writes a calibration record, suffix ``.npz``, atomically.

    Args:
        records: the statistics of each plan that the same model is exported as.
        path: the file.

    Raises:
        OutputError: it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, statistics in enumerate(records):
        arrays |= {f"{_prefix(number)}{key}": value for key, value in _arrays(statistics).items()}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _prefix(number: int) -> str:
    """Returns what the names of a record's arrays begin with; nothing for the first."""
    return f"{number}_" if number else ""


def _arrays(statistics: Statistics) -> dict[str, np.ndarray]:
    """Returns statistics as arrays.

    Second moments are stored as correlations in float16, one triangle of each matrix.
    """
    arrays: dict[str, np.ndarray] = {}
    for index, histogram in enumerate(statistics.histograms.values()):
        arrays[f"counts_{index}"] = histogram.counts.astype(np.uint32)
    for index, moments in enumerate(statistics.second_moments.values()):
        spread = np.sqrt(np.maximum(np.diag(moments), 1e-30))
        correlation = moments / np.outer(spread, spread)
        triangle = correlation[np.triu_indices(len(moments), 1)]
        arrays[f"spread_{index}"] = spread.astype(np.float32)
        arrays[f"correlation_{index}"] = triangle.astype(np.float16)
    about = _About(
        statistics.origin,
        statistics.samples,
        list(statistics.histograms),
        [(histogram.low, histogram.high) for histogram in statistics.histograms.values()],
        list(statistics.second_moments),
        statistics.probe,
    )
    return arrays | {"about": np.asarray(json.dumps(asdict(about)))}


def load(path: Path) -> list[Statistics]:
    """Reads a calibration record: the statistics of one plan or more.

    Raises:
        InvalidData: the file is no calibration record, or damaged.
    """
    records: list[Statistics] = []
    with refusing(InvalidData, f"{path} is no calibration record"):
        arrays = read_npz(path)
        while not records or f"{_prefix(len(records))}about" in arrays:
            records.append(_statistics(arrays, _prefix(len(records))))
            _check(records[-1])
    return records


def _statistics(arrays: Mapping[str, np.ndarray], prefix: str) -> Statistics:
    about = from_json(json.loads(str(arrays[f"{prefix}about"])), _About)
    histograms = {
        name: Histogram(low, high, arrays[f"{prefix}counts_{index}"].astype(np.int64))
        for index, (name, (low, high)) in enumerate(zip(about.tensors, about.ranges, strict=True))
    }
    moments = {
        name: _moments(arrays[f"{prefix}spread_{index}"], arrays[f"{prefix}correlation_{index}"])
        for index, name in enumerate(about.steps)
    }
    return Statistics(about.origin, about.samples, histograms, moments, about.probe)


def _check(statistics: Statistics) -> None:
    """Raises ``Malformed`` for statistics that no images can have."""
    if statistics.samples < 1:
        raise Malformed(f"it is of {statistics.samples} images")
    for name, histogram in statistics.histograms.items():
        counts, width = histogram.counts, histogram.high - histogram.low
        counted = counts.shape == (BINS,) and counts.min() >= 0 and counts.sum() > 0
        if not (0 < width < math.inf and counted):
            raise Malformed(f"the range of {name} is invalid")
    if not np.isfinite(list(statistics.probe.values())).all():
        raise Malformed("its probe is invalid")
    for name, moments in statistics.second_moments.items():
        spread = np.diag(moments)
        if not np.isfinite(moments).all() or (moments**2 > 1.01 * np.outer(spread, spread)).any():
            raise Malformed(f"the second moments of {name} are invalid")


def _moments(spread: np.ndarray, correlation: np.ndarray) -> Array:
    """Returns the second moments of their square-rooted diagonal and upper triangle.

    Raises:
        Malformed: they are not the parts of one matrix.
    """
    if spread.ndim != 1 or correlation.shape != (len(spread) * (len(spread) - 1) // 2,):
        raise Malformed("its second moments are no matrices")
    triangle = np.zeros((len(spread), len(spread)))
    triangle[np.triu_indices(len(spread), 1)] = correlation
    correlations: Array = triangle + triangle.T + np.eye(len(spread))
    return correlations * np.outer(spread, spread).astype(np.float64)
