"""Timing a session: warm-up, then every run kept as it was."""

import time
from collections.abc import Callable

import numpy as np

from cct_export.runtimes.session import Session
from cct_export.specs import BenchSpec

Clock = Callable[[], int]


def time_runs(
    session: Session,
    prepared: np.ndarray,
    spec: BenchSpec,
    clock: Clock = time.perf_counter_ns,
) -> tuple[int, ...]:
    """Times single runs, the reading of the logits included, pre- and post-processing not.

    Args:
        session: the session, opened.
        prepared: its input, made by ``runtimes.session.prepare``.
        spec: warm-up, number of runs and seconds at least.
        clock: returns nanoseconds.

    Returns:
        Nanoseconds of each run, in order.
    """
    invoke = session.invoke
    start = clock()
    while clock() - start < spec.warmup_s * 1e9:
        invoke(prepared)
    times: list[int] = []
    start = clock()
    while len(times) < spec.min_runs or clock() - start < spec.min_s * 1e9:
        before = clock()
        invoke(prepared)
        times.append(clock() - before)
    return tuple(times)
