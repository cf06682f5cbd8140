"""Worker processes of this package, and the lines of JSON that are exchanged with them.

Files of unknown origin are opened in a worker: an engine that crashes, never ends or takes too much
memory ends the worker only.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

from cct_export.errors import CCTExportError, EngineFailed, kind_of
from cct_export.records.encoding import from_json, to_builtins
from cct_export.records.machine import Count
from cct_export.specs import JSONObject
from cct_export.specs.progress import CountProgress, no_progress

Answer = TypeVar("Answer")

# No single run of an image classifier takes as long.
ANSWER_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 4 << 30
# The exit code of ssh where ssh itself failed, not the remote command.
SSH_FAILED = 255
_CLOSE_LIMIT_S = 10.0
# How often a worker looks whether the process that started it is still there.
_PARENT_CHECK_S = 0.5
# The package is found where it is now, installed or in a checkout, behind everything else.
PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from cct_export import workers
workers.main(*sys.argv[2:])
"""


@dataclass(frozen=True)
class Question:
    """A call of a public method of the worker."""

    method: str
    arguments: JSONObject = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A line of a worker: its answer, an error instead of one, or progress before either.

    Attributes:
        answer: what the method returned, as plain JSON types.
        error: the message of the error that it raised.
        kind: the name of that error in ``errors``; empty if there was none.
        progress: number of images that are done, and of all; None if this is no progress.
    """

    answer: Any = None
    error: str = ""
    kind: str = ""
    progress: tuple[Count, Count] | None = None


def encode(line: Question | Reply) -> str:
    """Returns a line of JSON; infinity and NaN, which SQNRs may be, stay what they are."""
    return json.dumps(to_builtins(line)) + "\n"


def _decode(line: str) -> Reply | None:
    """Returns the reply in a line, None if it holds something else."""
    try:
        return from_json(json.loads(line), Reply)
    except (ValueError, RecursionError):
        return None


class Channel:
    """A running worker.

    Args:
        command: starts the worker.
        subject: what its errors are about: the file.
        limit_s: seconds that an answer may take.
        connection_lost: where the command is ssh: makes the error for a broken connection of the
            messages of ssh.
    """

    def __init__(
        self,
        command: Sequence[str],
        subject: str,
        limit_s: float = ANSWER_LIMIT_S,
        connection_lost: Callable[[str], CCTExportError] | None = None,
    ) -> None:
        self._subject, self._limit_s, self._connection_lost = subject, limit_s, connection_lost
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the channel
        self._timed_out = self._replied = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            encoding="utf-8",
            errors="replace",  # a login shell greets as it likes
        )

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None and self._connection_lost is None:
            self.kill()  # it may be in the middle of a run that never ends
        else:
            self.close()

    def ask(
        self,
        method: str,
        kind: type[Answer],
        progress: CountProgress = no_progress,
        limit_s: float | None = None,
        **arguments: object,
    ) -> Answer:
        """Asks the worker, and waits for its answer.

        Args:
            method: a public method of the worker.
            kind: the record that it returns.
            progress: called with the number of images that are done, and of all.
            limit_s: seconds that this answer may take; by default as any other.
            **arguments: of the method.

        Raises:
            CCTExportError: what the worker raised.
            EngineFailed: the worker crashed, took too long, or answered what cannot be.
        """
        limit_s = self._limit_s if limit_s is None else limit_s
        timer = threading.Timer(limit_s, self._time_out)
        timer.start()
        try:
            reply = self._exchange(Question(method, arguments), progress)
        finally:
            timer.cancel()
        if reply is None:
            raise self._failure(method, limit_s)
        if reply.kind:
            raise (kind_of(reply.kind) or EngineFailed)(reply.error)
        try:
            return from_json(reply.answer, kind)
        except ValueError as error:
            raise EngineFailed(f"{self._subject}: no answer to {method!r}: {error}") from error

    def tell(self, method: str, **arguments: Any) -> None:
        """Calls a method of the worker that has no answer; see ``ask``."""
        self.ask(method, type(None), **arguments)

    def _exchange(self, question: Question, progress: CountProgress) -> Reply | None:
        """Returns the reply, None if the worker ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(encode(question))
            self._process.stdin.flush()
        except (OSError, ValueError):  # the latter of a pipe that was closed meanwhile
            return None
        for line in self._process.stdout:
            reply = _decode(line)
            if reply is None:
                if self._connection_lost is not None and not self._replied:
                    continue  # the greeting of a login shell
                raise EngineFailed(f"{self._subject}: no answer but {line[:80]!r}")
            self._replied = True
            if reply.progress is None:
                return reply
            progress(*reply.progress)
        return None

    def _time_out(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _failure(self, method: str, limit_s: float) -> CCTExportError:
        """Returns the error for a worker that ended without an answer."""
        if self._timed_out:
            reason = f"no answer to {method!r} within {limit_s:g} s"
            return EngineFailed(f"{self._subject}: {reason}")
        code = self._process.wait()
        self._messages.seek(0)
        messages = self._messages.read().decode(errors="replace").strip()
        if self._connection_lost is not None and code == SSH_FAILED:
            return self._connection_lost(messages)
        # A shell adds 128 to the signal that ended its command.
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            return EngineFailed(
                f"{self._subject}: the engine crashed ({signal.Signals(number).name})"
            )
        reason = messages.rpartition("\n")[2] or f"the engine ended with {code}"
        return EngineFailed(f"{self._subject}: {reason}")

    def close(self) -> None:
        """Ends the worker after its answer, or after ten seconds."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue  # a dead worker's pipe, with a question still in it
        try:
            self._process.wait(timeout=_CLOSE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._messages.close()

    def kill(self) -> None:
        """Ends the worker at once, whatever it does."""
        self._process.kill()
        self.close()


def start(
    target: str,
    subject: str,
    *,
    limit_s: float = ANSWER_LIMIT_S,
    memory_bytes: int = MEMORY_LIMIT_BYTES,
) -> Channel:
    """Starts a worker on this machine, in a fresh Python.

    Args:
        target: module and class of the worker, ``cct_export.bench.worker:Worker``. It is made with
            a ``CountProgress``, and its public methods are the questions.
        subject: what its errors are about.
        limit_s: seconds that an answer may take.
        memory_bytes: memory that it may take, where the system can limit it.
    """
    root = str(package_root())
    # -P: a module in the working directory must not stand in for one of an engine's.
    command = [sys.executable, "-P", "-c", PROGRAM, root, target, str(memory_bytes)]
    return Channel(command, subject, limit_s)


def package_root() -> Path:
    """Returns the folder that this package is imported from."""
    return Path(__file__).parents[1]


def serve(make: Callable[[CountProgress], object], questions: TextIO, replies: TextIO) -> None:
    """Answers until the questions end.

    Args:
        make: makes the worker.
        questions: lines of JSON, each a ``Question``.
        replies: gets lines of JSON, each a ``Reply``.
    """

    def send(reply: Reply) -> None:
        replies.write(encode(reply))
        replies.flush()

    worker = make(lambda done, total: send(Reply(progress=(done, total))))
    for line in questions:
        question = from_json(json.loads(line), Question)
        try:
            send(Reply(answer=getattr(worker, question.method)(**question.arguments)))
        except CCTExportError as error:
            send(Reply(error=str(error), kind=type(error).__name__))


def main(target: str, memory_bytes: str = "") -> None:
    """Serves on standard input and output; see ``start``. Behind ssh any memory may be taken.

    Replies go to what was standard output: whatever an engine prints goes to standard error.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # What an engine prints as it starts is not hidden here: its last line tells why it crashed.
    logging.getLogger("cct_export").setLevel(logging.DEBUG)
    with contextlib.suppress(ValueError):
        # Ctrl-C is for the process that started this one, which ends it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if memory_bytes:
        _limit_memory(int(memory_bytes))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, _, name = target.partition(":")
    serve(getattr(importlib.import_module(module), name), sys.stdin, replies)


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, in the middle of a run too."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


def _limit_memory(limit_bytes: int) -> None:
    """Limits the memory that this process can take, where the system has such a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    # Private and writable memory: what is mapped from files, or only reserved, is not counted.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))
