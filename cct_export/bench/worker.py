"""The process that runs one artifact on one engine: it is asked, line by line, and answers.

It is a process of its own so that an engine that crashes, or that keeps memory, harms nothing. A
question is a line of JSON on standard input, an answer one on what was standard output: whatever
an engine prints goes to standard error instead.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from cct_export import machine
from cct_export.bench import latency, memory
from cct_export.bench.answers import Burst, Opened, PeakMemory, Processing, Scored
from cct_export.data import read
from cct_export.data.sampling import timing_images
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.evaluation import accuracy, golden
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Conditions, MachineInfo, OperatorProfile, Runtime
from cct_export.records.encoding import from_json, to_builtins
from cct_export.runtimes import ENGINES, PROFILERS
from cct_export.runtimes.session import Session, dequantize, prepare
from cct_export.specs import BenchSpec

Answer = dict[str, Any]
PROCESSING_RUNS = 30
MEMORY_RUNS = 5


class Worker:
    """What can be asked of the process; every public method is a question.

    Args:
        tell: called with the done and the total number of images, now and then.
    """

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell
        self._watch = machine.Watch()
        self._session: Session
        self._prepared: np.ndarray
        self._path: Path
        self._spec: BenchSpec

    def open(self, path: str, spec: dict[str, Any]) -> Opened:
        """Opens an artifact on an engine and runs it once.

        Raises:
            CCTExportError: it cannot be run, or not there, or not by so many images.
        """
        self._path, self._spec = Path(path), from_json(spec, BenchSpec)
        engine = ENGINES[self._spec.runtime]
        engine.import_engine()  # loading a file is timed, importing Python modules is not
        started = time.perf_counter_ns()
        self._session = engine.open_session(
            self._path, threads=self._spec.threads, trusted=True, delegation=self._spec.delegation
        )
        load_ms = (time.perf_counter_ns() - started) / 1e6
        session, batch = self._session, self._spec.batch
        if session.batch not in (None, batch):
            source = session.contract.source or "MODEL"
            raise InvalidRequest(
                f"{path} takes {session.batch} image at a time, not {batch}: "
                f"`cct-export onnx {source}` makes a file for any number"
            )
        self._prepared = prepare(session, timing_images(session.image_shape, batch))
        started = time.perf_counter_ns()
        session.invoke(self._prepared)
        first_ms = (time.perf_counter_ns() - started) / 1e6
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
        return replace(runtime, name=name)  # of Keras with its backend

    def golden(self) -> GoldenCheck:
        """Compares with the golden images; see ``golden.check``."""
        return golden.check(self._session, path=self._path, delegation=self._spec.delegation)

    def warm_up(self, seconds: float) -> None:
        """Runs for ``seconds``, untimed."""
        latency.warm_up(self._session, self._prepared, seconds)

    def burst(self, runs: int, seconds: float) -> Burst:
        """Times at least so many runs, for at least so many seconds."""
        with self._watch:
            times = latency.burst(self._session, self._prepared, runs, seconds)
        return Burst(times, self._watch.other_cores, latency.yardstick_ms())

    def processing(self) -> Processing:
        """Times the pre- and postprocessing, which ``burst`` leaves out."""
        pixels = timing_images(self._session.image_shape, self._spec.batch)
        logits = self._session.invoke(self._prepared)
        return Processing(
            _median_ms(lambda: prepare(self._session, pixels)),
            _median_ms(lambda: self._best(logits)),
        )

    def _best(self, logits: np.ndarray) -> np.ndarray:
        reals = dequantize(logits, self._session.output_quantization)
        shares = np.exp(reals - reals.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return np.sort(shares, axis=1)[:, -5:]

    def memory(self) -> PeakMemory:
        """Returns the peak memory of this process, which only ran the artifact."""
        for _ in range(MEMORY_RUNS):
            self._session.invoke(self._prepared)
        return PeakMemory(memory.peak_rss_bytes())

    def accuracy(self, data: str) -> Scored:
        """Measures the accuracy on labelled images."""
        dataset = read(data, self._session.image_shape)
        found = accuracy.measure(self._session, dataset=dataset, progress=self._tell)
        return Scored(found.accuracy, tuple(found.correct.tolist()))

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


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(PROCESSING_RUNS):
        started = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e6


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answers until the questions end.

    Args:
        questions: lines of JSON: the method as ``ask``, its arguments beside it.
        answers: gets lines of JSON: what the method returned; ``error`` and ``kind`` where it
            raised; before either any number of lines with ``progress``.
    """

    def say(line: Answer) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    worker = Worker(lambda done, total: say({"progress": [done, total]}))
    for line in questions:
        question = json.loads(line)
        try:
            say(to_builtins(getattr(worker, question.pop("ask"))(**question)) or {})
        except CCTExportError as error:
            say({"error": str(error), "kind": type(error).__name__})


def main() -> None:
    """Serves on standard input and output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
