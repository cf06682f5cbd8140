"""Which engines and delegates of this machine work, found by running a small file on each."""

from pathlib import Path

from cct_export.bench.protocol import Opened, StartWorker
from cct_export.errors import CCTExportError
from cct_export.evaluation.golden import GoldenCheck
from cct_export.records import Diagnosis, ParityReport
from cct_export.runtimes import ENGINES
from cct_export.specs import DEFAULT_MODEL, BenchSpec, Delegation
from cct_export.specs.progress import StatusProgress

_FOLDER = Path(__file__).with_name("probe")
# A CCT with every kind of step and hardly any weights, see docs/write_probe.py.
PROBES = {
    "litert": _FOLDER / "probe.tflite",
    "onnxruntime": _FOLDER / "probe.onnx",
    "openvino": _FOLDER / "probe.onnx",
}
# Delegates that are libraries of the user's.
_LIBRARIES = ("external", "plugin")


def examine(start: StartWorker, progress: StatusProgress) -> list[Diagnosis]:
    """Tries every engine with every delegate.

    Args:
        start: starts a worker.
        progress: called with what runs now.

    Returns:
        A row for each, in the engines' own order. Delegates that are libraries of the user's are
        not tried: ``works`` is None.
    """
    diagnoses = []
    for name, engine in ENGINES.items():
        for delegate, about in engine.DELEGATES.items():
            if delegate in _LIBRARIES:
                why = "name its library"
                diagnoses.append(Diagnosis(name, "", delegate, about, None, why))
            elif delegate != "default":
                progress(f"{name} {delegate}")
                path = str(PROBES.get(name, DEFAULT_MODEL))
                diagnoses.append(_try(name, delegate, about, path, start))
    return diagnoses


def _try(engine: str, delegate: str, about: str, path: str, start: StartWorker) -> Diagnosis:
    spec = BenchSpec(engine, delegation=Delegation(delegate))
    try:
        with start(path) as channel:
            opened = channel.ask("open", Opened, path=path, spec=spec)
            fault = _fault(channel.ask("golden", GoldenCheck).parity)
    except CCTExportError as error:
        return Diagnosis(engine, "", delegate, about, False, _without_path(str(error), path))
    return Diagnosis(engine, opened.runtime.version, delegate, about, not fault, fault)


def _fault(parity: ParityReport | None) -> str:
    if parity is None or not parity.failures:
        return ""  # Keras itself is the reference, and has no parity
    return f"it runs, and computes something else: {'; '.join(parity.failures)}"


def _without_path(reason: str, path: str) -> str:
    """Returns a reason that does not name the probe, which users do not know."""
    return reason.rpartition(f" does not run {path}: ")[2].replace(path, "it")
