"""Engines that run a model file: LiteRT, ONNX Runtime, and Keras as the reference."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from cct_export.records import OperatorProfile
from cct_export.runtimes import (
    keras,
    litert,
    litert_profile,
    onnxruntime,
    onnxruntime_profile,
)
from cct_export.runtimes.session import Session
from cct_export.specs import DEFAULT_DELEGATION, Delegation


class Engine(Protocol):
    """What each module of an engine provides.

    Attributes:
        DELEGATES: name of each delegate, and one line about it.
    """

    @property
    def DELEGATES(self) -> Mapping[str, str]: ...  # noqa: D102, N802

    def import_engine(self) -> None:
        """Imports the library; raises ``MissingDependency`` where it is not installed."""
        ...

    def open_session(
        self,
        path: Path,
        threads: int = 1,
        trusted: bool = False,
        delegation: Delegation = DEFAULT_DELEGATION,
    ) -> Session:
        """Opens a file.

        Args:
            path: the model file.
            threads: threads that the engine may use.
            trusted: whether this process just wrote the file; others are first tried in a child
                process.
            delegation: what the engine hands its work to.
        """
        ...


ENGINES: dict[str, Engine] = {"litert": litert, "onnxruntime": onnxruntime, "keras": keras}
ENGINE_NAMES = {"tflite": "litert", "onnx": "onnxruntime", "keras": "keras"}
PROFILERS: dict[str, Callable[[Path, int, int, Delegation], OperatorProfile]] = {
    "litert": litert_profile.profile,
    "onnxruntime": onnxruntime_profile.profile,
}


def engine_of(format: str) -> Engine:
    """Returns the engine that runs files of ``format``, a key of ``ENGINE_NAMES``."""
    return ENGINES[ENGINE_NAMES[format]]
