"""The protocol between the measuring process and its workers: lines of JSON, and their channel.

A worker (``bench.worker``) runs on this machine or at the remote end of ssh.
"""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from cct_export.errors import CCTExportError, EngineFailed, kind_of
from cct_export.records import Accuracy, Contract, Runtime
from cct_export.records.bench import Nanoseconds
from cct_export.records.encoding import from_json, to_builtins
from cct_export.records.machine import Count, Figure, Milliseconds
from cct_export.specs import JSONObject
from cct_export.specs.progress import CountProgress, no_progress

Answer = TypeVar("Answer")

ANSWER_LIMIT_S = 3600.0
# The exit code of ssh where ssh itself failed, not the remote command.
SSH_FAILED = 255
# The package is found where it is now, installed or in a checkout, behind everything else.
WORKER = """
import sys
sys.path.append(sys.argv[1])
from cct_export.bench import worker
worker.main()
"""


@dataclass(frozen=True)
class Opened:
    """An artifact on an engine, after its first run.

    Attributes:
        runtime: the engine.
        contract: what the file says about itself.
        load_ms: time to open the session; None if not known.
        first_inference_ms: time of the first run; None if not known.
        image_shape: height, width, channels.
    """

    runtime: Runtime
    contract: Contract = field(default_factory=Contract)
    load_ms: Figure | None = None
    first_inference_ms: Figure | None = None
    image_shape: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Burst:
    """Timed runs without a pause.

    Attributes:
        times_ns: nanoseconds of each run, in order.
        other_cores: how many cores other programs kept busy, over all bursts of the worker; None
            if not known.
        yardstick_ms: how long a fixed piece of work took; None if not measured.
    """

    times_ns: Annotated[tuple[Nanoseconds, ...], Meta(min_length=1)]
    other_cores: Figure | None = None
    yardstick_ms: Milliseconds | None = None


@dataclass(frozen=True)
class Processing:
    """Median times of the work around a run; None if not measured.

    Attributes:
        preprocess_ms: from uint8 pixels of the right size to the engine's input.
        postprocess_ms: from its output to five classes with probabilities.
    """

    preprocess_ms: Figure | None = None
    postprocess_ms: Figure | None = None


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of a process that only ran the artifact; None where the OS does not tell."""

    peak_rss_bytes: Count | None


@dataclass(frozen=True)
class Scored:
    """Accuracy on labelled images, and which of them were classified correctly."""

    accuracy: Accuracy
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Question:
    """A call of a public method of ``bench.worker.Worker``."""

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
        subject: what its errors are about: the artifact.
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

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(
        self,
        method: str,
        kind: type[Answer],
        progress: CountProgress = no_progress,
        **arguments: object,
    ) -> Answer:
        """Asks the worker, and waits for its answer.

        Args:
            method: a public method of ``bench.worker.Worker``.
            kind: the record that it returns.
            progress: called with the number of images that are done, and of all.
            **arguments: of the method.

        Raises:
            CCTExportError: what the worker raised.
            EngineFailed: the worker crashed, took too long, or answered what cannot be.
        """
        timer = threading.Timer(self._limit_s, self._time_out)
        timer.start()
        try:
            reply = self._exchange(Question(method, arguments), progress)
        finally:
            timer.cancel()
        if reply is None:
            raise self._failure(method)
        if reply.kind:
            raise (kind_of(reply.kind) or EngineFailed)(reply.error)
        try:
            return from_json(reply.answer, kind)
        except ValueError as error:
            raise EngineFailed(f"{self._subject}: no answer to {method!r}: {error}") from error

    def tell(self, method: str, **arguments: object) -> None:
        """Calls a method of the worker that has no answer; see ``ask``."""
        self.ask(method, type(None), no_progress, **arguments)

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

    def _failure(self, method: str) -> CCTExportError:
        """Returns the error for a worker that ended without an answer."""
        if self._timed_out:
            reason = f"no answer to {method!r} within {self._limit_s:g} s"
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
        """Ends the worker."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue  # a dead worker's pipe, with a question still in it
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._messages.close()


# Starts a worker; the argument is the subject of its errors.
StartWorker = Callable[[str], Channel]


def start_worker(subject: str) -> Channel:
    """Starts a worker on this machine, in a fresh Python; its errors are about ``subject``."""
    # -P: a module in the working directory must not stand in for one of an engine's.
    return Channel([sys.executable, "-P", "-c", WORKER, str(package_root())], subject)


def package_root() -> Path:
    """Returns the folder that this package is imported from."""
    return Path(__file__).parents[2]
