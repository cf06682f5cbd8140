"""Timing sessions: warm-up, then every run kept as it was."""

import time
from collections.abc import Callable

import numpy as np

from cct_export.runtimes.session import Session
from cct_export.runtimes.timing import Clock

YARDSTICK_RUNS = 20


def warm_up(
    session: Session, prepared: np.ndarray, seconds: float, clock: Clock = time.perf_counter_ns
) -> None:
    """Runs for ``seconds``, and times nothing."""
    start = clock()
    while clock() - start < seconds * 1e9:
        session.invoke(prepared)


def burst(
    session: Session,
    prepared: np.ndarray,
    runs: int,
    seconds: float,
    clock: Clock = time.perf_counter_ns,
) -> tuple[int, ...]:
    """Times single runs, the reading of the logits included, pre- and post-processing not.

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
    times: list[int] = []
    start = clock()
    while len(times) < runs or clock() - start < seconds * 1e9:
        before = clock()
        invoke(prepared)
        times.append(clock() - before)
    return tuple(times)


def yardstick_ms(clock: Clock = time.perf_counter_ns) -> float:
    """Returns how long a fixed piece of work takes, the best of some: the speed of the machine.

    It tells a slower machine from a slower engine. One thread, in the first-level cache.
    """
    numbers = np.linspace(-1.0, 1.0, 2048)
    best = min(_time_of(lambda: np.exp(numbers).sum(), clock) for _ in range(YARDSTICK_RUNS))
    return best / 1e6


def _time_of(work: Callable[[], object], clock: Clock) -> int:
    before = clock()
    work()
    return clock() - before
