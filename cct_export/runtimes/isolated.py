"""A session in a process of its own, for files of unknown origin."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cct_export import workers
from cct_export.data.dataset import ImageShape
from cct_export.errors import CCTExportError, EngineFailed, InvalidArtifact
from cct_export.records import Contract, OutputContract
from cct_export.records.encoding import from_json
from cct_export.records.layout import in_layout
from cct_export.runtimes.session import Logits, Quantization, Session, check_logits
from cct_export.specs import DEFAULT_DELEGATION, Delegation
from cct_export.specs.progress import CountProgress

WORKER = "cct_export.runtimes.isolated:Worker"
# What engines say where memory cannot be had.
_NO_MEMORY = ("bad_alloc", "ailed to allocate memory", "cannot allocate memory")


@dataclass(frozen=True)
class Array:
    """An array as JSON has it.

    Attributes:
        dtype: numpy's name of the type.
        shape: sizes of the axes.
        data: the elements in C order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> "Array":
        """Returns the record of ``array``."""
        return cls(array.dtype.name, array.shape, array.tobytes())

    def decoded(self) -> np.ndarray:
        """Returns the array."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Opening:
    """What ``Engine.open_session`` takes.

    Attributes:
        engine: its name in ``runtimes.ENGINES``.
        path: the file.
        threads: threads that the engine may use.
        delegation: the delegate or execution provider.
    """

    engine: str
    path: str
    threads: int = 1
    delegation: Delegation = DEFAULT_DELEGATION


@dataclass(frozen=True)
class Description:
    """The attributes of a ``Session``."""

    engine: tuple[str, str]
    delegate: str
    accelerator: str
    image_shape: tuple[int, int, int]
    layout: str
    io: str
    contract: Contract
    input_quantization: Quantization | None
    outputs: tuple[OutputContract, ...]
    output_quantizations: tuple[Quantization | None, ...]
    batch: int | None
    delegated_nodes: int | None
    total_nodes: int | None
    arena_bytes: int | None


class IsolatedSession(Session):
    """A file in an engine of another process. See ``Session``.

    A run that crashes the engine, takes more memory than ``workers.MEMORY_LIMIT_BYTES`` or longer
    than ``workers.ANSWER_LIMIT_S`` ends that process, and raises ``InvalidArtifact``.

    Args:
        opening: what to open with which engine.
    """

    def __init__(self, opening: Opening) -> None:
        self._path = opening.path
        self._channel = workers.start(WORKER, opening.path)
        try:
            description = self._ask("open", Description, opening=opening)
        except BaseException:  # Ctrl-C too: nobody else has the worker yet
            self.close()
            raise
        self.engine = description.engine
        self.delegate, self.accelerator = description.delegate, description.accelerator
        self.image_shape: ImageShape = description.image_shape
        self.layout = description.layout
        self.io, self.batch = description.io, description.batch
        self.contract = description.contract
        self.input_quantization = description.input_quantization
        self.outputs = description.outputs
        self.output_quantizations = description.output_quantizations
        self.delegated_nodes = description.delegated_nodes
        self.total_nodes = description.total_nodes
        self.arena_bytes = description.arena_bytes

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        logits: Logits = self._ask("invoke", Array, prepared=Array.of(prepared)).decoded()
        return logits

    def close(self) -> None:
        """Ends the process."""
        self._channel.kill()

    def _ask(self, method: str, kind: type[workers.Answer], **arguments: Any) -> workers.Answer:
        try:
            return self._channel.ask(method, kind, **arguments)
        except EngineFailed as error:
            reason = str(error).removeprefix(f"{self._path}: ")
            raise InvalidArtifact(f"{self._path} cannot be run: {reason}") from error


def check_runs(opening: Opening) -> None:
    """Opens a file and runs it once in another process; raises as ``Engine.open_session``."""
    session = IsolatedSession(opening)
    try:
        shape = (session.batch or 1, *in_layout(session.image_shape, session.layout))
        session.invoke(np.zeros(shape, session.io))
    finally:
        session.close()


class Worker:
    """The other process: every public method is a question.

    Args:
        progress: not called: a run has no parts.
    """

    def __init__(self, progress: CountProgress) -> None:
        self._session: Session
        self._path = ""

    def open(self, opening: object) -> Description:
        """Opens a file; see ``Opening`` and ``Engine.open_session``."""
        from cct_export.runtimes import ENGINES

        wanted = from_json(opening, Opening)
        self._path = wanted.path
        try:
            self._session = session = ENGINES[wanted.engine].open_session(
                Path(wanted.path),
                threads=wanted.threads,
                trusted=True,
                delegation=wanted.delegation,
            )
        except InvalidArtifact as error:
            if _lacks_memory(error):
                raise _failure(wanted.path, error) from error
            raise
        return Description(
            **{each.name: getattr(session, each.name) for each in fields(Description)}
        )

    def invoke(self, prepared: object) -> Array:
        """Runs once.

        Raises:
            InvalidArtifact: the engine cannot run the file, or gives no row of logits per image.
        """
        image = from_json(prepared, Array).decoded()
        try:
            outputs = self._session.invoke(image)
            check_logits(outputs, images=len(image), path=self._path)
            return Array.of(outputs)
        except CCTExportError:
            raise
        except Exception as error:  # engines' exceptions have no common base class
            raise _failure(self._path, error) from error


def _failure(path: str, error: Exception) -> InvalidArtifact:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if _lacks_memory(error):
        reason = f"it needs more than {workers.MEMORY_LIMIT_BYTES >> 30} GiB of memory"
    return InvalidArtifact(f"{path} cannot be run: {reason}")


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)
