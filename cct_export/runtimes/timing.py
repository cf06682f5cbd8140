"""Interleaved timing of several sessions, for machines with background load."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Clock = Callable[[], int]


class Runnable(Protocol):
    """Anything that can be timed: a ``Session``, or a part of a model."""

    def invoke(self, prepared: np.ndarray) -> Any:
        """Runs once."""
        ...


def time_interleaved(
    sessions: Sequence[Runnable],
    *,
    inputs: Sequence[np.ndarray],
    rounds: int,
    burst: int,
    warmup: int,
    clock: Clock = time.perf_counter_ns,
    settle_ns: int = 0,
) -> list[tuple[int, ...]]:
    """Times sessions round robin, so that background load affects all of them alike.

    Args:
        sessions: open sessions, all in this process.
        inputs: the prepared input of each session.
        rounds: rounds, in each of which every session runs one burst.
        burst: timed runs per burst.
        warmup: untimed runs before each burst, which bring code and weights back into the caches.
        clock: returns nanoseconds.
        settle_ns: minimum duration of the untimed runs of each burst.

    Returns:
        For each session the nanoseconds of its ``rounds · burst`` runs, in order.
    """
    times: list[list[int]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, prepared, durations in zip(sessions, inputs, times, strict=True):
            start, untimed = clock(), 0
            while untimed < warmup or clock() - start < settle_ns:
                session.invoke(prepared)
                untimed += 1
            for _ in range(burst):
                before = clock()
                session.invoke(prepared)
                durations.append(clock() - before)
    return [tuple(durations) for durations in times]
