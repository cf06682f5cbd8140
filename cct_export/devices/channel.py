"""A worker process that is asked, and answers; on this machine or at the far end of a shell."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cct_export import errors
from cct_export.errors import EngineFailed

ANSWER_LIMIT_S = 3600.0

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
    """

    def __init__(
        self, command: Sequence[str], subject: str, limit_s: float = ANSWER_LIMIT_S
    ) -> None:
        self._subject, self._limit_s = subject, limit_s
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the channel
        self._late = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
        )

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, question: str, tell: Tell = _ignore, **arguments: Any) -> dict[str, Any]:
        """Asks the worker, and waits for its answer.

        Args:
            question: a public method of ``measurement.worker.Worker``.
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
            raise EngineFailed(f"{self._subject}: {self._cause(question)}")
        if "error" in answer:
            raise getattr(errors, answer["kind"])(answer["error"])
        return answer

    def _exchange(self, question: dict[str, Any], tell: Tell) -> dict[str, Any] | None:
        """Returns the answer, None if the worker ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        for line in self._process.stdout:
            try:
                answer: dict[str, Any] = json.loads(line)
            except ValueError:
                raise EngineFailed(f"{self._subject}: no answer but {line[:80]!r}") from None
            if "progress" not in answer:
                return answer
            tell(*answer["progress"])
        return None

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def _cause(self, question: str) -> str:
        if self._late:
            return f"no answer to {question!r} within {self._limit_s:g} s"
        code = self._process.wait()
        if code < 0:
            return f"the engine crashed ({signal.Signals(-code).name})"
        self._messages.seek(0)
        last = self._messages.read().decode(errors="replace").strip().rpartition("\n")[2]
        return last or f"the engine ended with {code}"

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


def package_root() -> Path:
    """Returns the folder that this package is imported from."""
    return Path(__file__).parents[2]


# Starts a worker; its errors are about what is named.
Start = Callable[[str], Channel]

# The package is found where it is now, installed or in a checkout, behind everything else.
WORKER = """
import sys
sys.path.append(sys.argv[1])
from cct_export.measurement import worker
worker.main()
"""


def start_worker(subject: str) -> Channel:
    """Starts a worker on this machine, in a fresh Python; see ``Start``."""
    # -P: a module in the working directory must not stand in for one of an engine's.
    return Channel([sys.executable, "-P", "-c", WORKER, str(package_root())], subject)
