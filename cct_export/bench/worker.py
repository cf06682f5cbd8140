"""The process that runs one artifact on one engine, and answers the questions of ``protocol``.

It is a process of its own, see ``workers``, so that an engine that crashes, or that keeps memory,
harms nothing.
"""

import shlex
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cct_export import machine
from cct_export.bench.protocol import (
    Burst,
    Opened,
    PeakMemory,
    Processing,
    Scored,
)
from cct_export.data import read
from cct_export.data.dataset import Dataset
from cct_export.data.sampling import timing_images
from cct_export.errors import InvalidRequest
from cct_export.evaluation import accuracy, golden
from cct_export.evaluation.golden import GoldenCheck
from cct_export.evaluation.outputs import cut, probabilities
from cct_export.records import Conditions, MachineInfo, OperatorProfile, Runtime
from cct_export.records.encoding import from_json
from cct_export.runtimes import ENGINES, PROFILERS
from cct_export.runtimes.session import Session, dequantize, prepare
from cct_export.runtimes.timing import Clock
from cct_export.specs import BenchSpec
from cct_export.specs.progress import CountProgress

PROCESSING_RUNS = 30
MEMORY_RUNS = 5
YARDSTICK_RUNS = 20


class Worker:
    """The answers of the process: every public method is a question.

    Args:
        progress: called with the number of images that are done, and of all.
    """

    def __init__(self, progress: CountProgress) -> None:
        self._progress = progress
        self._watch = machine.CpuWatch()
        self._session: Session
        self._prepared: np.ndarray
        self._path: Path
        self._spec: BenchSpec

    def open(self, path: str, spec: object) -> Opened:
        """Opens an artifact on an engine and runs it once.

        Args:
            path: the artifact.
            spec: a ``BenchSpec`` as plain JSON types.

        Raises:
            CCTExportError: it cannot be run, or not with this delegate or batch.
        """
        self._path, self._spec = Path(path), from_json(spec, BenchSpec)
        engine = ENGINES[self._spec.runtime]
        engine.import_engine()  # loading a file is timed, importing Python modules is not
        start = time.perf_counter_ns()
        self._session = engine.open_session(
            self._path,
            threads=self._spec.threads,
            trusted=True,
            delegation=self._spec.delegation,
            options=self._spec.options,
        )
        load_ms = (time.perf_counter_ns() - start) / 1e6
        session, batch = self._session, self._spec.batch
        if session.batch not in (None, batch):
            source = session.contract.source or "MODEL"
            raise InvalidRequest(
                f"{path} takes {session.batch} image at a time, not {batch}: "
                f"`cct-export onnx {shlex.quote(source)}` makes a file for any number"
            )
        self._prepared = prepare(session, timing_images(session.image_shape, batch))
        start = time.perf_counter_ns()
        session.invoke(self._prepared)
        first_ms = (time.perf_counter_ns() - start) / 1e6
        return Opened(self._runtime(), session.contract, load_ms, first_ms, session.image_shape)

    def _runtime(self) -> Runtime:
        session = self._session
        name, version = session.engine
        runtime = Runtime.of(
            self._spec,
            version=version,
            accelerator=session.accelerator,
            delegate=session.delegate,
            nodes=(session.delegated_nodes, session.total_nodes),
        )
        return replace(runtime, name=name)  # Keras with its backend

    def golden(self) -> GoldenCheck:
        """Compares with the golden images; see ``golden.check``."""
        return golden.check(self._session, path=self._path, delegation=self._spec.delegation)

    def warm_up(self, seconds: float) -> None:
        """Runs for ``seconds``, untimed."""
        warm_up(self._session, self._prepared, seconds)

    def burst(self, runs: int, seconds: float) -> Burst:
        """Times at least so many runs, for at least so many seconds."""
        with self._watch:
            times_ns = time_burst(self._session, self._prepared, runs, seconds)
        return Burst(times_ns, self._watch.other_cores, yardstick_ms())

    def processing(self) -> Processing:
        """Times the pre- and postprocessing, which ``burst`` leaves out."""
        pixels = timing_images(self._session.image_shape, self._spec.batch)
        logits = self._session.invoke(self._prepared)
        return Processing(
            _median_ms(lambda: prepare(self._session, pixels)),
            _median_ms(lambda: self._top5(logits)),
        )

    def _top5(self, logits: np.ndarray) -> list[np.ndarray]:
        values = cut(dequantize(self._session, logits), self._session.outputs)
        return [np.sort(probabilities(part, output))[..., -5:] for output, part in values]

    def memory(self) -> PeakMemory:
        """Returns the peak memory of this process, which only ran the artifact."""
        for _ in range(MEMORY_RUNS):
            self._session.invoke(self._prepared)
        return PeakMemory(machine.peak_rss_bytes())

    def check_data(self, data: str) -> None:
        """Raises ``InvalidData`` if the accuracy cannot be measured on these labelled images."""
        accuracy.check_labels(self._session, self._dataset(data))

    def _dataset(self, data: str) -> Dataset:
        return read(data, self._session.image_shape, resize=self._session.contract.resize)

    def accuracy(self, data: str) -> Scored:
        """Measures the accuracy on labelled images."""
        dataset = self._dataset(data)
        scored = accuracy.measure(self._session, dataset=dataset, progress=self._progress)
        return Scored(scored.accuracy, tuple(scored.correct.tolist()))

    def operators(self, runs: int) -> OperatorProfile:
        """Times each operator."""
        profile = PROFILERS.get(self._spec.runtime)
        if profile is None:
            raise InvalidRequest(f"{self._spec.runtime} tells no times of its operators")
        return profile(
            self._path, threads=self._spec.threads, runs=runs, delegation=self._spec.delegation
        )

    def machine(self) -> MachineInfo:
        """Returns ``machine.describe``."""
        return machine.describe()

    def conditions(self) -> Conditions:
        """Returns ``machine.conditions``."""
        return machine.conditions()


def warm_up(
    session: Session, prepared: np.ndarray, seconds: float, clock: Clock = time.perf_counter_ns
) -> None:
    """Runs for ``seconds``, untimed."""
    start = clock()
    while clock() - start < seconds * 1e9:
        session.invoke(prepared)


def time_burst(
    session: Session,
    prepared: np.ndarray,
    runs: int,
    seconds: float,
    clock: Clock = time.perf_counter_ns,
) -> tuple[int, ...]:
    """Times single runs, from the engine's input to logits that were read.

    Args:
        session: the session, opened.
        prepared: its input, made by ``runtimes.session.prepare``.
        runs: at least.
        seconds: at least.
        clock: returns nanoseconds.

    Returns:
        Nanoseconds of each run, in order.
    """
    invoke = session.invoke
    times_ns: list[int] = []
    start = clock()
    while len(times_ns) < runs or clock() - start < seconds * 1e9:
        before = clock()
        invoke(prepared)
        times_ns.append(clock() - before)
    return tuple(times_ns)


def yardstick_ms(clock: Clock = time.perf_counter_ns) -> float:
    """Returns the fastest of some runs of a fixed piece of work: the speed of the machine.

    It distinguishes a slower machine from a slower engine. One thread, in the first-level cache.
    """
    numbers = np.linspace(-1.0, 1.0, 2048)
    return min(_times_ns(lambda: np.exp(numbers).sum(), YARDSTICK_RUNS, clock)) / 1e6


def _median_ms(work: Callable[[], object]) -> float:
    return statistics.median(_times_ns(work, PROCESSING_RUNS)) / 1e6


def _times_ns(
    work: Callable[[], object], runs: int, clock: Clock = time.perf_counter_ns
) -> list[int]:
    times_ns = []
    for _ in range(runs):
        before = clock()
        work()
        times_ns.append(clock() - before)
    return times_ns
