"""Timing several sessions fairly on a machine that is not quiet."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Clock = Callable[[], int]


class Runs(Protocol):
    """What can be timed: a ``Session``, or a part of one."""

    def invoke(self, prepared: np.ndarray) -> Any:
        """Runs once."""
        ...


def time_in_turn(
    sessions: Sequence[Runs],
    prepared: Sequence[np.ndarray],
    rounds: int,
    burst: int,
    warmup: int,
    clock: Clock = time.perf_counter_ns,
    settle_ns: int = 0,
) -> list[tuple[int, ...]]:
    """Times sessions round robin, so that whatever the machine does meets them all alike.

    Args:
        sessions: opened, all in this process.
        prepared: the input of each.
        rounds: how often each has its turn.
        burst: timed runs in a turn.
        warmup: untimed runs before those, which bring code and weights back into the caches.
        clock: returns nanoseconds.
        settle_ns: how long the untimed runs of a turn go on at least.

    Returns:
        For each session the nanoseconds of its ``rounds · burst`` runs, in order.
    """
    times: list[list[int]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, image, kept in zip(sessions, prepared, times, strict=True):
            start, untimed = clock(), 0
            while untimed < warmup or clock() - start < settle_ns:
                session.invoke(image)
                untimed += 1
            for _ in range(burst):
                before = clock()
                session.invoke(image)
                kept.append(clock() - before)
    return [tuple(kept) for kept in times]
