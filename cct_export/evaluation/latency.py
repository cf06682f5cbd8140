"""Latency of several files, interleaved in this process."""

from collections.abc import Sequence
from pathlib import Path

from cct_export.data.sampling import timing_images
from cct_export.runtimes import ENGINE_NAMES, engine_of, format_of
from cct_export.runtimes.isolated import Opening, check_runs
from cct_export.runtimes.session import prepare
from cct_export.runtimes.timing import time_interleaved


def time_files(
    paths: Sequence[Path],
    *,
    threads: int = 1,
    rounds: int = 50,
    burst: int = 20,
    warmup: int = 5,
) -> list[tuple[int, ...]]:
    """Times ``.tflite`` and ``.onnx`` files on random pixels; see ``time_interleaved``.

    Raises:
        InvalidArtifact: a file cannot be run.
        InvalidRequest: a file has another suffix.
    """
    engines = [engine_of(format_of(path)) for path in paths]
    for path in paths:
        check_runs(Opening(ENGINE_NAMES[format_of(path)], str(path), threads))
    sessions = [
        engine.open_session(path, threads=threads, trusted=True)
        for engine, path in zip(engines, paths, strict=True)
    ]
    try:
        inputs = [
            prepare(session, timing_images(session.image_shape, session.batch or 1))
            for session in sessions
        ]
        return time_interleaved(sessions, inputs=inputs, rounds=rounds, burst=burst, warmup=warmup)
    finally:
        for session in sessions:
            session.close()
