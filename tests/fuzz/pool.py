"""Workers, watched from outside: a hang, a crash or too much memory ends one, not the run."""

import contextlib
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from fuzz import worker
from fuzz.kinds import KINDS
from fuzz.oracle import MAX_MEMORY, Ended
from fuzz.worker import Result, Task

# An engine gives up after its own limit; only what is deaf to that is a hang.
HANG_S = 150
# Where a command takes longer than this, its memory is looked at from time to time.
_LOOK_S = 0.3
# Thousands of small files are written faster into memory than to a disk.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Worker:
    """A process that runs inputs; it is started again when it has to be ended.

    Args:
        seeds: folder with the seeds.
    """

    def __init__(self, seeds: Path) -> None:
        self._seeds = seeds
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(self, task: Task) -> Result:
        """Runs an input."""
        self.start()
        self._connection.send(task)
        return self._wait(KINDS[task.kind].limit_s)

    def stop(self) -> None:
        """Ends the process and what it started."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self._process.pid)
            for each in [*top.children(recursive=True), top]:
                with contextlib.suppress(psutil.Error):
                    each.kill()
        self._process.join()
        self._process = None
        self._connection.close()
        self._folder.cleanup()

    def start(self) -> None:
        """Starts the process unless it runs, and waits until its libraries are loaded."""
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(
            prefix="cct-fuzz-", dir=_MEMORY, ignore_cleanup_errors=True
        )
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.serve, args=(theirs, Path(self._folder.name), self._seeds), daemon=False
        )
        self._process.start()
        theirs.close()
        self._connection.recv()

    def _wait(self, limit_s: float) -> Result:
        """Waits for the answer to a task."""
        started, most = time.monotonic(), 0
        assert self._process is not None
        resident = psutil.Process(self._process.pid).memory_info().rss
        try:
            while not self._connection.poll(_LOOK_S):
                memory = _memory(self._process.pid)
                most = max(most, memory - resident)
                if most > MAX_MEMORY:
                    return self._ended("memory", most, time.monotonic() - started)
                if time.monotonic() - started > HANG_S:
                    return self._ended("hang", most, time.monotonic() - started)
            result = self._connection.recv()
        except (EOFError, ConnectionError):
            return self._ended("crash", most, time.monotonic() - started)
        if not isinstance(result, Result):
            raise RuntimeError(result)
        memory = max(most, result.ended.memory_bytes)
        return Result(replace(result.ended, memory_bytes=memory), result.failures)

    def _ended(self, why: str, memory: int, seconds: float) -> Result:
        self.stop()
        return Result(Ended(None, why=why, memory_bytes=memory, seconds=seconds), (why,))


def _memory(pid: int | None) -> int:
    """Returns the memory of a process and its children, in bytes."""
    memory = 0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for each in [top, *top.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory += each.memory_info().rss
    return memory
