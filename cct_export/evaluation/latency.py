"""Latency of several files, interleaved in this process."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from cct_export.data.sampling import timing_images
from cct_export.runtimes import ENGINE_NAMES, ENGINES, format_of
from cct_export.runtimes.isolated import Opening, check_runs
from cct_export.runtimes.session import prepare
from cct_export.runtimes.timing import time_interleaved


def time_files(
    paths: Sequence[Path],
    *,
    engines: Sequence[str] = (),
    threads: int = 1,
    rounds: int = 50,
    burst: int = 20,
    warmup: int = 5,
    trial: bool = True,
) -> list[tuple[int, ...]]:
    """Times exported files on random pixels; see ``time_interleaved``.

    Args:
        paths: the files.
        engines: what runs each of them, of ``ENGINES``; by default the engine of its format.
        threads: threads that each engine may use.
        rounds: see ``time_interleaved``, and so the arguments that follow.
        burst: see there.
        warmup: see there.
        trial: whether each file first runs once in another process, which it may crash.

    Raises:
        InvalidArtifact: a file cannot be run.
        InvalidRequest: a file has another suffix.
    """
    names = engines or [ENGINE_NAMES[format_of(path)] for path in paths]
    files = list(zip(names, paths, strict=True))
    for name, path in files if trial else ():
        check_runs(Opening(name, str(path), threads))
    with ExitStack() as stack:
        sessions = []
        for name, path in files:
            session = ENGINES[name].open_session(path, threads=threads, trusted=True)
            sessions.append(stack.enter_context(closing(session)))
        inputs = [
            prepare(session, timing_images(session.image_shape, session.batch or 1))
            for session in sessions
        ]
        return time_interleaved(sessions, inputs=inputs, rounds=rounds, burst=burst, warmup=warmup)
