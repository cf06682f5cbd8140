"""Latency of several files against each other, in this process."""

from collections.abc import Sequence
from pathlib import Path

from cct_export.data.sampling import timing_images
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import prepare
from cct_export.runtimes.timing import time_in_turn


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
