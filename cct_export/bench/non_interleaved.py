"""The passes that nothing is compared in: memory, accuracy, operators, a long time."""

import math
import time
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from cct_export.bench.answers import Burst, Opened, PeakMemory, Scored
from cct_export.bench.hosts.channel import Channel, Start, start_worker
from cct_export.bench.hosts.host import Host, Say
from cct_export.bench.measurement import Tally
from cct_export.errors import CCTExportError
from cct_export.evaluation.accuracy import mcnemar
from cct_export.records import Accuracy, Conditions, OperatorProfile, Sustained
from cct_export.specs import BenchPasses, BenchSpec

Answer = TypeVar("Answer")

# A curve of this many points at most, and no point shorter than a second.
POINTS = 120


class References:
    """Which images the Keras models get right that artifacts were made of, each asked once.

    They run here, whatever the device: there it may have no Keras.

    Args:
        say: called with what is done now.
        start: starts a worker.
    """

    def __init__(self, say: Say, start: Start = start_worker) -> None:
        self._say, self._start = say, start
        self._right: dict[tuple[str, str], np.ndarray | None] = {}

    def right(self, tally: Tally, data: str) -> np.ndarray | None:
        """Returns the images that the model gets right, None where it is not at hand."""
        source, sha256 = tally.contract.source, tally.contract.source_sha256
        if not source or not sha256:
            return None
        if (sha256, data) not in self._right:
            self._right[sha256, data] = self._ask(source, sha256, data)
        return self._right[sha256, data]

    def _ask(self, source: str, sha256: str, data: str) -> np.ndarray | None:
        self._say(f"accuracy of {source} in Keras")
        try:
            with self._start(source) as channel:
                spec = BenchSpec("keras")
                opened = _opened(channel, source, spec)
                if opened.contract.source_sha256 != sha256:
                    return None
                return np.array(channel.ask("accuracy", Scored, data=data).right, bool)
        except CCTExportError:
            return None  # no Keras here, or not this model: there is no pair


def _opened(channel: Channel, path: str, spec: BenchSpec) -> Opened:
    return channel.ask("open", Opened, path=path, spec=asdict(spec))


def measure(
    tally: Tally, passes: BenchPasses, host: Host, references: References, say: Say
) -> None:
    """Does the passes that were asked for, memory always, each in a fresh process.

    Raises:
        CCTExportError: what a worker raised.
    """
    memory = tally.persist(lambda: _asked(tally, host, "memory", PeakMemory))
    tally.peak_rss_bytes = memory.peak_rss_bytes
    data = passes.accuracy_data
    if data is not None:
        tally.accuracy = tally.persist(lambda: _accuracy(tally, data, host, references, say))
    if passes.operators:
        say(f"operators of {tally.path}")
        runs = passes.operators
        tally.operators = tally.persist(
            lambda: _asked(tally, host, "operators", OperatorProfile, runs=runs)
        )
    if passes.sustained_s:
        tally.sustained = tally.persist(lambda: _sustained(tally, passes.sustained_s, host, say))


def _asked(tally: Tally, host: Host, question: str, kind: type[Answer], **arguments: Any) -> Answer:
    with host.start(str(tally.path)) as channel:
        channel.ask("open", Opened, path=tally.there, spec=tally.asked)
        return channel.ask(question, kind, **arguments)


def _accuracy(tally: Tally, data: str, host: Host, references: References, say: Say) -> Accuracy:

    def tell(done: int, total: int) -> None:
        say(f"accuracy of {tally.path}: {done} of {total} images")

    with host.start(str(tally.path)) as channel:
        opened = channel.ask("open", Opened, path=tally.there, spec=tally.asked)
        height, width, channels = opened.image_shape
        there = host.labelled(data, (height, width, channels))
        answer = channel.ask("accuracy", Scored, tell, data=there)
    reference = references.right(tally, data) if tally.spec.runtime != "keras" else None
    candidate = np.array(answer.right, bool)
    pair = None if reference is None else mcnemar(reference=reference, candidate=candidate)
    return replace(answer.accuracy, data=data, paired=pair)


def _sustained(tally: Tally, seconds: float, host: Host, say: Say) -> Sustained:
    """Runs without a pause, from a cold start: warming up is what it is about."""
    interval = max(1.0, math.ceil(seconds / POINTS))
    points: list[tuple[float, float, int]] = []
    conditions: list[Conditions] = []
    with host.start(str(tally.path)) as channel:
        channel.ask("open", Opened, path=tally.there, spec=tally.asked)
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            say(f"sustained {tally.path}: {elapsed:.0f} of {seconds:.0f} s")
            times = channel.ask("burst", Burst, runs=1, seconds=interval).times_ns
            p50, p90 = np.percentile(times, (50, 90)) / 1e6
            points.append((float(p50), float(p90), len(times)))
            conditions.append(channel.ask("conditions", Conditions))
    medians, nineties, runs = zip(*points, strict=True)
    return Sustained(
        interval_s=interval,
        p50_ms=medians,
        p90_ms=nineties,
        runs=runs,
        temperature_c=tuple(one.temperature_c for one in conditions),
        frequency_mhz=tuple(one.frequency_mhz for one in conditions),
    )
