"""A process with the libraries loaded, from which commands are forked.

So a kill meets a command at its work, not at its imports.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

# In the environment of every process that a command starts.
MARK = "CCT_FUZZ_COMMAND"


class Starter:
    """Starts commands; use it as a context manager."""

    def __enter__(self) -> "Starter":
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.join(10)
        self._process.kill()

    def start(self, words: tuple[str, ...], folder: Path, mark: str) -> int:
        """Starts a command in a folder; returns the number of its process.

        Its output goes to the files ``out`` and ``err`` beside the folder.
        """
        self._connection.send((words, str(folder), mark))
        return int(self._connection.recv())

    def ended(self, pid: int, limit_s: float) -> int | None:
        """Returns the exit code, negative for a signal; None if it still runs after the limit."""
        self._connection.send((pid, limit_s))
        answer: int | None = self._connection.recv()
        return answer


def _serve(connection: Connection) -> None:
    os.environ |= {
        "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1",
        "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    import tensorflow as tf  # noqa: F401

    from cct_export.commands import program

    programs = {"export": program.export_main, "bench": program.bench_main}
    with contextlib.suppress(EOFError):
        while True:
            first, second, *rest = connection.recv()
            if isinstance(first, int):
                connection.send(_wait(first, float(second)))
                continue
            pid = os.fork()
            if not pid:
                connection.close()
                os.environ[MARK] = rest[0]
                _command(programs[first[0]], first, Path(second))
            connection.send(pid)


def _wait(pid: int, limit_s: float) -> int | None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _command(program: object, words: tuple[str, ...], folder: Path) -> None:
    """Becomes a command; does not return."""
    os.setsid()
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder.with_name(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [f"cct-{words[0]}", *words[1:]]
    code = 1
    try:
        program()  # type: ignore[operator]
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:  # as an interpreter does whose program raises, whatever it is
        import traceback

        traceback.print_exc()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
