"""What this machine can run artifacts with, found out by running one."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from cct_export.bench.answers import Opened
from cct_export.bench.hosts.channel import Start
from cct_export.errors import CCTExportError
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Diagnosis, ParityReport
from cct_export.runtimes import ENGINES
from cct_export.specs import DEFAULT_MODEL, BenchSpec, Delegation

_FOLDER = Path(__file__).with_name("probe")
# A CCT of every kind of step and hardly any weights, see docs/write_probe.py.
PROBES = {"litert": _FOLDER / "probe.tflite", "onnxruntime": _FOLDER / "probe.onnx"}
_BY_PATH = ("external", "plugin")


def examine(start: Start, say: Callable[[str], None]) -> list[Diagnosis]:
    """Tries every engine with every delegate.

    Args:
        start: starts a worker.
        say: called with what is done now.

    Returns:
        A line for each, in the engines' own order; those that are libraries of the user's are
        not tried, they have no ``works``.
    """
    return [
        found
        for engine in ("litert", "onnxruntime", "keras")
        for found in _of_engine(engine, start, say)
    ]


def _of_engine(engine: str, start: Start, say: Callable[[str], None]) -> Iterator[Diagnosis]:
    delegates = ENGINES[engine].DELEGATES
    path = str(PROBES.get(engine, DEFAULT_MODEL))
    for delegate, about in delegates.items():
        if delegate == "default":
            continue
        if delegate in _BY_PATH:
            yield Diagnosis(engine, "", delegate, about, None, "name its library")
            continue
        say(f"{engine} {delegate}")
        yield _try(engine, delegate, about, path, start)


def _try(engine: str, delegate: str, about: str, path: str, start: Start) -> Diagnosis:
    spec = asdict(BenchSpec(engine, delegation=Delegation(delegate)))
    try:
        with start(path) as channel:
            opened = channel.ask("open", Opened, path=path, spec=spec)
            wrong = _fault(channel.ask("golden", GoldenCheck).parity)
    except CCTExportError as error:
        return Diagnosis(engine, "", delegate, about, False, _without(str(error), path))
    return Diagnosis(engine, opened.runtime.version, delegate, about, not wrong, wrong)


def _fault(parity: ParityReport | None) -> str:
    if parity is None:
        return ""  # Keras itself is what the others are compared with
    failures = parity.failures
    return f"it runs, and answers wrongly: {'; '.join(failures)}" if failures else ""


def _without(reason: str, path: str) -> str:
    """Returns a reason that does not name the probe, which the user never heard of."""
    return reason.rpartition(f" does not run {path}: ")[2].replace(path, "it")
