"""What is measured when: latencies interleaved, then every other pass by itself.

Every artifact has a worker process of its own, and every repeat and pass a fresh one.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from cct_export.bench import warnings
from cct_export.bench.hosts import Host
from cct_export.bench.measurement import Measurement
from cct_export.bench.protocol import (
    Burst,
    Opened,
    PeakMemory,
    Processing,
    Scored,
    StartWorker,
    start_worker,
)
from cct_export.errors import CCTExportError, ConnectionLost
from cct_export.evaluation.accuracy import mcnemar
from cct_export.evaluation.golden import GoldenCheck
from cct_export.importers.location import is_hub_id
from cct_export.records import Accuracy, BenchResult, Conditions, OperatorProfile, Sustained
from cct_export.specs import BenchJob, BenchPasses, BenchPlan, BenchSpec, ModelOptions
from cct_export.specs.progress import StatusProgress
from cct_export.text import plural
from cct_export.workers import Channel

# A delegate may compile the file for minutes.
OPEN_LIMIT_S = 600.0
# Before its turn the others have had the caches: some runs that do not count.
TURN_WARM_UP_S = 0.002
# A curve has at most this many points, and no point is shorter than a second.
POINTS = 120


def measure(
    jobs: Sequence[BenchJob], plan: BenchPlan, host: Host, progress: StatusProgress
) -> list[BenchResult]:
    """Measures jobs on a host that runs workers.

    Args:
        jobs: what to measure.
        plan: how.
        host: where the workers run.
        progress: called with what runs now.

    Returns:
        See ``Device.measure``.

    Raises:
        CCTExportError: the host cannot be used.
    """
    machine = host.describe()
    measurements = [Measurement(job, plan.timing, host.name) for job in jobs]
    for measurement in measurements:
        measurement.attempt(_copy, measurement, host)
    for repeat in range(plan.timing.repeats):
        label = f", repeat {repeat + 1} of {plan.timing.repeats}" if plan.timing.repeats > 1 else ""
        what = f"timing {plural(len(measurements), 'artifact')} in turn{label}"
        _time_interleaved(
            measurements, host, plan.passes.accuracy_data, _percentage(progress, what)
        )
    references = KerasReferences(progress, plan.passes.models)
    for measurement in measurements:
        measurement.attempt(_Passes(measurement, host, references, progress).run, plan.passes)
    return [measurement.result(machine) for measurement in measurements]


def _percentage(progress: StatusProgress, what: str) -> Callable[[float], None]:
    """Returns a callback that reports a share of ``what`` in per cent."""
    return lambda share: progress(f"{what}: {share:.0%}")


def _copy(measurement: Measurement, host: Host) -> None:
    measurement.device_path = measurement.reconnections.retry(
        lambda: host.copy_artifact(measurement.path)
    )


@contextlib.contextmanager
def _worker(measurement: Measurement, host: Host) -> Iterator[tuple[Channel, Opened]]:
    """Starts a worker that has opened the artifact; it ends with the context."""
    with host.start(str(measurement.path)) as channel:
        yield channel, _open(channel, measurement.device_path, measurement.job.spec)


def _open(channel: Channel, path: str, spec: BenchSpec) -> Opened:
    return channel.ask("open", Opened, limit_s=OPEN_LIMIT_S, path=path, spec=spec)


def _test_images(host: Host, data: str, opened: Opened) -> str:
    """Copies the labelled images to the host; returns what they are called there."""
    height, width, channels = opened.image_shape
    return host.copy_test_images(data, (height, width, channels))


def _time_interleaved(
    measurements: Sequence[Measurement],
    host: Host,
    data: str | None,
    progress: Callable[[float], None],
) -> None:
    """Times one repeat: the artifacts in turn, each until it has enough runs.

    Args:
        measurements: get the runs.
        host: where the workers run.
        data: labelled images that accuracy is measured on later; what cannot use them is not timed.
        progress: called with the share of the repeat that is done, 0 to 1.
    """
    progress(0.0)
    with contextlib.ExitStack() as workers:
        repeats = [_Repeat(measurement, host, data, workers) for measurement in measurements]
        running = [repeat for repeat in repeats if repeat.start()]
        while running:
            alone = len(running) == 1
            running = [repeat for repeat in running if repeat.take_turn(alone)]
            progress(min((repeat.done for repeat in running), default=1.0))


class _Repeat:
    """One artifact in one repeat.

    Args:
        measurement: gets the runs.
        host: where the worker runs.
        data: labelled images that it must be able to use; None for none.
        workers: ends the worker.
    """

    def __init__(
        self,
        measurement: Measurement,
        host: Host,
        data: str | None,
        workers: contextlib.ExitStack,
    ) -> None:
        self._measurement, self._host, self._workers = measurement, host, workers
        self._data = data
        self._channel: Channel

    @property
    def done(self) -> float:
        """The share of the repeat that is done, 0 to 1."""
        return self._measurement.timings.done

    def start(self) -> bool:
        """Starts a worker and warms it up; returns whether there is anything to time."""
        measurement = self._measurement
        return bool(measurement.attempt(measurement.reconnections.retry, self._prepare))

    def take_turn(self, alone: bool) -> bool:
        """Times a burst; returns whether the repeat goes on.

        Args:
            alone: whether no other artifact has had a turn since.
        """
        return bool(self._measurement.attempt(self._time_or_reconnect, alone))

    def _time_or_reconnect(self, alone: bool) -> bool:
        try:
            return self._time_burst(alone)
        except ConnectionLost as error:
            self._measurement.reconnections.pause(error)
            self._measurement.reconnections.retry(self._open_warm)
            return True

    def _prepare(self) -> bool:
        measurement = self._measurement
        self._open()
        if measurement.timings.empty:
            measurement.golden = self._channel.ask("golden", GoldenCheck)
            if not measurement.usable:
                return False
            if self._data is not None:
                images = _test_images(self._host, self._data, self._opened)
                self._channel.tell("check_data", data=images)
            measurement.processing = self._channel.ask("processing", Processing)
        self._warm_up(measurement.timing.warmup_s)
        measurement.timings.begin_repeat(self._channel.ask("conditions", Conditions))
        return True

    def _open(self) -> None:
        worker = _worker(self._measurement, self._host)
        self._channel, self._opened = self._workers.enter_context(worker)
        if self._measurement.opened is None:
            self._measurement.opened = self._opened

    def _open_warm(self) -> None:
        self._open()
        self._warm_up(self._measurement.timing.warmup_s)

    def _warm_up(self, seconds: float) -> None:
        self._channel.tell("warm_up", seconds=seconds)

    def _time_burst(self, alone: bool) -> bool:
        timings = self._measurement.timings
        if (burst := timings.next_burst()) is not None:
            if not alone:
                self._warm_up(TURN_WARM_UP_S)
            runs, seconds = burst
            timings.add(self._channel.ask("burst", Burst, runs=runs, seconds=seconds))
        if timings.next_burst() is not None:
            return True
        timings.end_repeat(self._channel.ask("conditions", Conditions))
        return False


class KerasReferences:
    """Which images the Keras models that artifacts were made of classify correctly, each run once.

    They run on this machine, whatever the device: it may have no Keras.

    Args:
        progress: called with what runs now.
        models: of the models on the Hub, those that may be downloaded; files name any others.
        start: starts a worker.
    """

    def __init__(
        self, progress: StatusProgress, models: Sequence[str], start: StartWorker = start_worker
    ) -> None:
        self._progress, self._models, self._start = progress, models, start
        self._right: dict[tuple[str, str, ModelOptions], np.ndarray | None] = {}

    def right(self, measurement: Measurement, data: str) -> np.ndarray | None:
        """Returns for each image whether the model is right, None without the model."""
        source, sha256 = measurement.contract.source, measurement.contract.source_sha256
        if not source or not sha256:
            return None
        if is_hub_id(source) and source not in self._models:
            measurement.notes.append(warnings.model_not_downloaded(measurement.path, source))
            return None
        key = sha256, data, measurement.contract.options
        if key not in self._right:
            self._right[key] = self._run(source, *key)
        return self._right[key]

    def _run(self, source: str, sha256: str, data: str, options: ModelOptions) -> np.ndarray | None:
        self._progress(f"accuracy of {source} in Keras")
        try:
            with self._start(source) as channel:
                opened = _open(channel, source, BenchSpec("keras", options=options))
                if opened.contract.source_sha256 != sha256:
                    return None
                return np.array(channel.ask("accuracy", Scored, data=data).right, bool)
        except CCTExportError:
            return None  # no Keras here, or not this model: there is nothing to compare with


class _Passes:
    """Everything but latency, of one artifact: each pass in a fresh worker.

    Args:
        measurement: gets the figures.
        host: where the workers run.
        references: the Keras models to compare accuracies with.
        progress: called with what runs now.
    """

    def __init__(
        self,
        measurement: Measurement,
        host: Host,
        references: KerasReferences,
        progress: StatusProgress,
    ) -> None:
        self._measurement, self._host = measurement, host
        self._references, self._progress = references, progress

    def run(self, passes: BenchPasses) -> None:
        """Measures the memory, and what ``passes`` names.

        Raises:
            CCTExportError: what a worker raised.
        """
        measurement, retry = self._measurement, self._measurement.reconnections.retry
        measurement.peak_rss_bytes = retry(self._peak_memory)
        if (data := passes.accuracy_data) is not None:
            measurement.accuracy = retry(lambda: self._accuracy(data))
        if passes.operators:
            measurement.operators = retry(lambda: self._operators(passes.operators))
        if passes.sustained_s:
            measurement.sustained = retry(lambda: self._sustained(passes.sustained_s))

    def _peak_memory(self) -> int | None:
        with _worker(self._measurement, self._host) as (channel, _):
            return channel.ask("memory", PeakMemory).peak_rss_bytes

    def _operators(self, runs: int) -> OperatorProfile:
        self._progress(f"operators of {self._measurement.path}")
        with _worker(self._measurement, self._host) as (channel, _):
            return channel.ask("operators", OperatorProfile, runs=runs)

    def _accuracy(self, data: str) -> Accuracy:
        measurement = self._measurement

        def count(done: int, total: int) -> None:
            self._progress(f"accuracy of {measurement.path}: {done} of {total} images")

        with _worker(measurement, self._host) as (channel, opened):
            device_data = _test_images(self._host, data, opened)
            scored = channel.ask("accuracy", Scored, count, data=device_data)
        keras = measurement.job.spec.runtime == "keras"
        reference = None if keras else self._references.right(measurement, data)
        candidate = np.array(scored.right, bool)
        pair = None if reference is None else mcnemar(reference=reference, candidate=candidate)
        return replace(scored.accuracy, data=data, paired=pair)

    def _sustained(self, seconds: float) -> Sustained:
        """Runs without a pause, from a cold start: warming up is part of what is measured."""
        interval_s = max(1.0, math.ceil(seconds / POINTS))
        bursts: list[Burst] = []
        conditions: list[Conditions] = []
        with _worker(self._measurement, self._host) as (channel, _):
            start = time.monotonic()
            while (elapsed := time.monotonic() - start) < seconds:
                self._progress(
                    f"sustained {self._measurement.path}: {elapsed:.0f} of {seconds:.0f} s"
                )
                bursts.append(channel.ask("burst", Burst, runs=1, seconds=interval_s))
                conditions.append(channel.ask("conditions", Conditions))
        percentiles = [np.percentile(burst.times_ns, (50, 90)) / 1e6 for burst in bursts]
        return Sustained(
            interval_s=interval_s,
            p50_ms=tuple(float(p50) for p50, _ in percentiles),
            p90_ms=tuple(float(p90) for _, p90 in percentiles),
            runs=tuple(len(burst.times_ns) for burst in bursts),
            temperature_c=tuple(state.temperature_c for state in conditions),
            frequency_mhz=tuple(state.frequency_mhz for state in conditions),
        )
