"""Engines that run a model file, and Keras as the reference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cct_export.errors import InvalidRequest
from cct_export.records import OperatorProfile
from cct_export.runtimes import (
    keras,
    litert,
    litert_profile,
    ncnn,
    onnxruntime,
    onnxruntime_profile,
    openvino,
    tflm,
)
from cct_export.runtimes.session import Session
from cct_export.specs import (
    DEFAULT_DELEGATION,
    NO_OPTIONS,
    SUFFIXES,
    Delegation,
    ExportSpec,
    ModelOptions,
)


class Engine(Protocol):
    """The interface of an engine's module.

    Attributes:
        DELEGATES: one line about each delegate, by name.
    """

    @property
    def DELEGATES(self) -> Mapping[str, str]: ...  # noqa: D102, N802

    def choose_delegate(self, name: str) -> str:
        """Returns a delegate as ``DELEGATES`` names it; imports nothing.

        Raises:
            InvalidRequest: there is no such delegate; the closest name is suggested.
        """
        ...

    def import_engine(self) -> None:
        """Imports the library; raises ``MissingDependency`` where it is not installed."""
        ...

    def open_session(
        self,
        path: Path,
        *,
        threads: int = 1,
        trusted: bool = False,
        delegation: Delegation = DEFAULT_DELEGATION,
        options: ModelOptions = NO_OPTIONS,
    ) -> Session:
        """Opens a file.

        Args:
            path: the model file.
            threads: threads that the engine may use.
            trusted: whether this process just wrote the file; others first run in a subprocess,
                where a broken file can crash the engine.
            delegation: the delegate or execution provider, one of ``DELEGATES``.
            options: what the file of a MODEL does not say; an exported file says it all.

        Raises:
            InvalidArtifact: the file is broken, or does not map images to logits.
            InvalidRequest: there is no such file or delegate, or it has no such option.
            MissingDependency: the library is not installed.
            NotAvailable: the delegate is not available, or does not run all operators.
        """
        ...


class Profiler(Protocol):
    """Times the operators of a file on one image of random pixels."""

    def __call__(
        self,
        path: Path,
        *,
        threads: int,
        runs: int,
        delegation: Delegation = DEFAULT_DELEGATION,
    ) -> OperatorProfile:
        """Times a file.

        Args:
            path: the file; it is only read.
            threads: threads that the engine may use.
            runs: timed runs of each operator.
            delegation: the delegate or execution provider.

        Raises:
            EngineFailed: the engine failed, or its profile lacks runs.
            InvalidArtifact: the file is broken, or does not map images to logits.
            InvalidRequest: there is no such file, or operators cannot be timed on this delegate.
            MissingDependency: the library is not installed.
        """
        ...


ENGINES: dict[str, Engine] = {
    "litert": litert,
    "tflm": tflm,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "ncnn": ncnn,
    "keras": keras,
}
ENGINE_NAMES = {"tflite": "litert", "onnx": "onnxruntime", "ncnn": "ncnn", "keras": "keras"}
# Engines whose times are measured, by format: the one that files are verified with comes first.
TIMED_ENGINES = {format: (name,) for format, name in ENGINE_NAMES.items()} | {
    format: (ENGINE_NAMES[format], "openvino") for format in ("tflite", "onnx")
}
PROFILERS: dict[str, Profiler] = {
    "litert": litert_profile.profile,
    "onnxruntime": onnxruntime_profile.profile,
}


def engine_of(format: str) -> Engine:
    """Returns the engine that runs files of ``format``, a key of ``ENGINE_NAMES``."""
    return ENGINES[ENGINE_NAMES[format]]


def engine_name(spec: ExportSpec) -> str:
    """Returns the engine that runs an exported file, a key of ``ENGINES``."""
    return spec.engine or ENGINE_NAMES[spec.format]


def engine_for_target(format: str, target: str) -> Engine:
    """Returns the engine that proves a file: that of its target where it is installed.

    Args:
        format: see ``engine_of``.
        target: what the file was made for, see ``Contract``.
    """
    return tflm if target == "tflm" and tflm.is_installed() else engine_of(format)


def open_by_target(path: Path) -> Session:
    """Opens a file of unknown origin in the engine that it says it was made for.

    Raises:
        CCTExportError: see ``Engine.open_session``.
    """
    format = format_of(path)
    session = engine_of(format).open_session(path)
    engine = engine_for_target(format, session.contract.target)
    if engine is engine_of(format):
        return session
    session.close()
    return engine.open_session(path)


def is_artifact(path: Path) -> bool:
    """Returns whether a name ends as those of exported files do, see ``SUFFIXES``."""
    return bool(_format_of(path))


def format_of(path: Path) -> str:
    """Returns the format of an exported file by its suffix: ``tflite``, ``onnx`` or ``ncnn``.

    Raises:
        InvalidRequest: the file has another suffix.
    """
    format = _format_of(path)
    if not format:
        *others, last = SUFFIXES.values()
        raise InvalidRequest(f"{path} is no {', '.join(others)} or {last} file")
    return format


def _format_of(path: Path) -> str:
    """Returns the format of an exported file, empty for any other file."""
    name = path.name
    endings = {suffix: format for format, suffix in SUFFIXES.items() if name != suffix}
    return next((format for suffix, format in endings.items() if name.endswith(suffix)), "")
