"""A worker process that is asked, and answers; on this machine or at the far end of a shell."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cct_export import errors
from cct_export.errors import CCTExportError, EngineFailed
from cct_export.records.encoding import from_json

Answer = TypeVar("Answer")

ANSWER_LIMIT_S = 3600.0
# What ssh ends with when it is not the far command that failed.
SSH_FAILED = 255

Tell = Callable[[int, int], None]
Say = Callable[[str], None]


def _ignore(done: int, total: int) -> None:
    """Default progress: none."""


class Channel:
    """A running worker, see ``measurement.worker.serve``.

    Args:
        command: starts the worker.
        subject: what the errors are about: the artifact.
        limit_s: seconds that one answer may take.
        lost: where the command is ssh: the error for a connection that broke, of what ssh said.
    """

    def __init__(
        self,
        command: Sequence[str],
        subject: str,
        limit_s: float = ANSWER_LIMIT_S,
        lost: Callable[[str], CCTExportError] | None = None,
    ) -> None:
        self._subject, self._limit_s, self._lost = subject, limit_s, lost
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the channel
        self._late = self._answered = False
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
        self, question: str, kind: type[Answer], tell: Tell = _ignore, **arguments: Any
    ) -> Answer:
        """Asks the worker, and waits for its answer.

        Args:
            question: a public method of ``measurement.worker.Worker``.
            kind: the record that it returns.
            tell: called with the done and the total number of images.
            **arguments: of the method.

        Raises:
            CCTExportError: what the worker raised.
            EngineFailed: the worker crashed, or took too long.
        """
        late = threading.Timer(self._limit_s, self._end_late)
        late.start()
        try:
            answer = self._exchange({"ask": question, **arguments}, tell)
        finally:
            late.cancel()
        if answer is None:
            raise self._cause(question)
        if "error" in answer:
            raise getattr(errors, answer["kind"])(answer["error"])
        return from_json(answer, kind)

    def tell(self, question: str, **arguments: Any) -> None:
        """Has the worker do something that has no answer; see ``ask``."""
        self.ask(question, dict, **arguments)

    def _exchange(self, question: dict[str, Any], tell: Tell) -> dict[str, Any] | None:
        """Returns the answer, None if the worker ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # the latter of a pipe that was closed meanwhile
            return None
        for line in self._process.stdout:
            answer = _record(line)
            if answer is None:
                if self._lost is not None and not self._answered:
                    continue  # a login shell that greets
                raise EngineFailed(f"{self._subject}: no answer but {line[:80]!r}")
            self._answered = True
            if "progress" not in answer:
                return answer
            tell(*answer["progress"])
        return None

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def _cause(self, question: str) -> CCTExportError:
        if self._late:
            late = f"no answer to {question!r} within {self._limit_s:g} s"
            return EngineFailed(f"{self._subject}: {late}")
        code = self._process.wait()
        self._messages.seek(0)
        said = self._messages.read().decode(errors="replace").strip()
        if self._lost is not None and code == SSH_FAILED:
            return self._lost(said)
        # A shell adds 128 to the signal that ended its command.
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            return EngineFailed(
                f"{self._subject}: the engine crashed ({signal.Signals(number).name})"
            )
        last = said.rpartition("\n")[2] or f"the engine ended with {code}"
        return EngineFailed(f"{self._subject}: {last}")

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


def _record(line: str) -> dict[str, Any] | None:
    """Returns the JSON object in ``line``, None if it holds something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def package_root() -> Path:
    """Returns the folder that this package is imported from."""
    return Path(__file__).parents[2]


# Starts a worker; its errors are about what is named.
Start = Callable[[str], Channel]

# The package is found where it is now, installed or in a checkout, behind everything else.
WORKER = """
import sys
sys.path.append(sys.argv[1])
from cct_export.bench import worker
worker.main()
"""


def start_worker(subject: str) -> Channel:
    """Starts a worker on this machine, in a fresh Python; see ``Start``."""
    # -P: a module in the working directory must not stand in for one of an engine's.
    return Channel([sys.executable, "-P", "-c", WORKER, str(package_root())], subject)
