"""The passes that nothing is compared in: memory, accuracy, operators, a long time."""

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from cct_export.devices.channel import Channel, Say, Start
from cct_export.devices.tally import Tally
from cct_export.errors import CCTExportError
from cct_export.measurement.proportions import paired
from cct_export.results import Accuracy, OperatorProfile, Sustained
from cct_export.specs import BenchPasses, BenchSpec

# A curve of this many points at most, and no point shorter than a second.
POINTS = 120


class References:
    """Which images the Keras models get right that artifacts were made of, each asked once.

    Args:
        start: starts a worker.
        say: called with what is done now.
    """

    def __init__(self, start: Start, say: Say) -> None:
        self._start, self._say = start, say
        self._right: dict[tuple[str, str], np.ndarray | None] = {}

    def right(self, tally: Tally, data: str) -> np.ndarray | None:
        """Returns the images that the model gets right, None where it is not at hand."""
        source, sha256 = tally.contract.get("source"), tally.contract.get("source_sha256")
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
                if opened["contract"]["source_sha256"] != sha256:
                    return None
                return np.array(channel.ask("accuracy", data=data)["right"], bool)
        except CCTExportError:
            return None  # no Keras here, or not this model: there is no pair


def _opened(channel: Channel, path: str, spec: BenchSpec) -> dict[str, Any]:
    return channel.ask("open", path=path, spec=asdict(spec))


def measure(
    tally: Tally, passes: BenchPasses, start: Start, references: References, say: Say
) -> None:
    """Does the passes that were asked for, memory always, each in a fresh process.

    Raises:
        CCTExportError: what a worker raised.
    """
    path = str(tally.path)
    with start(path) as channel:
        channel.ask("open", path=path, spec=tally.asked)
        tally.memory(channel.ask("memory"))
    if passes.accuracy_data is not None:
        tally.accuracy = _accuracy(tally, passes.accuracy_data, start, references, say)
    if passes.operators:
        say(f"operators of {path}")
        with start(path) as channel:
            channel.ask("open", path=path, spec=tally.asked)
            found = channel.ask("operators", runs=passes.operators)["operators"]
            tally.operators = OperatorProfile.from_dict(found)
    if passes.sustained_s:
        tally.sustained = _sustained(tally, passes.sustained_s, start, say)


def _accuracy(tally: Tally, data: str, start: Start, references: References, say: Say) -> Accuracy:
    path = str(tally.path)

    def tell(done: int, total: int) -> None:
        say(f"accuracy of {path}: {done} of {total} images")

    with start(path) as channel:
        channel.ask("open", path=path, spec=tally.asked)
        answer = channel.ask("accuracy", tell, data=data)
    reference = references.right(tally, data) if tally.spec.runtime != "keras" else None
    pair = None if reference is None else paired(reference, np.array(answer["right"], bool))
    return Accuracy.from_dict(answer["accuracy"] | {"paired": pair})


def _sustained(tally: Tally, seconds: float, start: Start, say: Say) -> Sustained:
    """Runs without a pause, from a cold start: warming up is what it is about."""
    interval = max(1.0, math.ceil(seconds / POINTS))
    points: list[tuple[float, float, int]] = []
    conditions: list[dict[str, float | None]] = []
    with start(str(tally.path)) as channel:
        channel.ask("open", path=str(tally.path), spec=tally.asked)
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            say(f"sustained {tally.path}: {elapsed:.0f} of {seconds:.0f} s")
            times = channel.ask("burst", runs=1, seconds=interval)["times_ns"]
            p50, p90 = np.percentile(times, (50, 90)) / 1e6
            points.append((float(p50), float(p90), len(times)))
            conditions.append(channel.ask("conditions"))
    medians, nineties, runs = zip(*points, strict=True)
    return Sustained(
        interval_s=interval,
        p50_ms=medians,
        p90_ms=nineties,
        runs=runs,
        temperature_c=tuple(one["temperature_c"] for one in conditions),
        frequency_mhz=tuple(one["frequency_mhz"] for one in conditions),
    )
