"""Timing sessions: warm-up, then every run kept as it was."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cct_export.data.picks import timing_images
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import Session, prepare
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


def time_in_turn(
    sessions: Sequence[Session],
    prepared: Sequence[np.ndarray],
    rounds: int,
    burst: int,
    warmup: int,
    clock: Clock = time.perf_counter_ns,
) -> list[tuple[int, ...]]:
    """Times sessions round robin, so that whatever the machine does meets them all alike.

    Args:
        sessions: opened, all in this process.
        prepared: the input of each.
        rounds: how often each has its turn.
        burst: timed runs in a turn.
        warmup: untimed runs before those, which bring code and weights back into the caches.
        clock: returns nanoseconds.

    Returns:
        For each session the nanoseconds of its ``rounds · burst`` runs, in order.
    """
    times: list[list[int]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, image, kept in zip(sessions, prepared, times, strict=True):
            for _ in range(warmup):
                session.invoke(image)
            for _ in range(burst):
                before = clock()
                session.invoke(image)
                kept.append(clock() - before)
    return [tuple(kept) for kept in times]


def time_files(
    paths: Sequence[Path],
    threads: int = 1,
    rounds: int = 50,
    burst: int = 20,
    warmup: int = 5,
) -> list[tuple[int, ...]]:
    """Times files round robin on one image of random pixels; see ``time_in_turn``.

    Args:
        paths: ``.tflite`` and ``.onnx`` files.
        threads: threads that each engine may use.
        rounds: how often each has its turn.
        burst: timed runs in a turn.
        warmup: untimed runs before those.

    Raises:
        InvalidArtifact: a file cannot be run.
    """
    sessions = [engine_of(path.suffix[1:]).open_session(path, threads) for path in paths]
    try:
        images = [prepare(s, timing_images(s.image_shape, s.batch or 1)) for s in sessions]
        return time_in_turn(sessions, images, rounds, burst, warmup)
    finally:
        for session in sessions:
            session.close()
