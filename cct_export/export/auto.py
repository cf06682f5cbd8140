"""The fastest scheme on this machine that keeps the accuracy bound."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from cct_export.data.dataset import Dataset
from cct_export.errors import (
    CCTExportError,
    ConversionError,
    EngineFailed,
    InvalidArtifact,
    InvalidRequest,
    UnsupportedScheme,
)
from cct_export.evaluation import accuracy
from cct_export.evaluation.latency import time_files
from cct_export.export.pipeline import Exported, check, export
from cct_export.importers import LoadedModel, open_dataset
from cct_export.quantize.schemes import BY_FORMAT
from cct_export.runtimes import engine_of
from cct_export.runtimes.keras import KerasSession
from cct_export.specs import CalibrationSpec, ExportSpec, TuningSpec

ROUNDS = 15


# What speaks against one scheme, and not against the others.
_REFUSALS = (InvalidRequest, UnsupportedScheme, ConversionError, InvalidArtifact, EngineFailed)


@dataclass(frozen=True)
class Candidate:
    """A scheme that was tried.

    Attributes:
        scheme: its name.
        why_not: why it was not taken; empty for the one that was.
        median_ms: latency, one thread; None if it was not measured.
        size_bytes: size of the file.
        sqnr_db: noise ratio of the logits.
        drop: points of top-1 accuracy that it loses, 0 to 100; None if that was not asked.
    """

    scheme: str
    why_not: str = ""
    median_ms: float | None = None
    size_bytes: int | None = None
    sqnr_db: float | None = None
    drop: float | None = None


def choose(
    loaded: LoadedModel,
    spec: ExportSpec,
    output: Path,
    data_name: str | None,
    calibration: CalibrationSpec,
    wishes: TuningSpec,
    parity_samples: int,
) -> Exported:
    """Exports in every scheme, measures, and writes the fastest that keeps the bounds.

    Args:
        loaded: the model.
        spec: what file; its scheme is found here.
        output: the file to write.
        data_name: see ``export``.
        calibration: how integers are chosen.
        wishes: the bounds; ``max_drop`` needs labelled images.
        parity_samples: test images that prove parity.

    Raises:
        CCTExportError: no scheme keeps the bounds, or any reason that ``export`` has.
    """
    dataset = open_dataset(loaded, data_name)
    if wishes.best_ranges:
        raise InvalidRequest(
            "--calibrate best is for one scheme, auto tries them all: name either a scheme or a way"
        )
    if wishes.max_drop is not None and dataset is None:
        raise InvalidRequest("--max-drop counts right answers: give labelled images with --data")

    def write(scheme: str, path: Path) -> Exported:
        chosen = replace(spec, scheme=scheme)
        return export(
            loaded, chosen, path, data_name, calibration, parity_samples, wishes.min_sqnr_db
        )

    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}.{spec.format}") for name in BY_FORMAT[spec.format]}
        tried = {name: _try(spec, name, path, write) for name, path in paths.items()}
        tried = _with_times(tried, paths)
        judge = None
        if dataset is not None and wishes.max_drop is not None:
            judge = _Judge(loaded, dataset, wishes.max_drop)
        taken, tried = _fastest(tried, paths, judge)
    if taken is None:
        reasons = "; ".join(f"{c.scheme}: {c.why_not}" for c in tried.values())
        raise CCTExportError(f"no scheme keeps the bounds ({reasons}): loosen them")
    outcome = write(taken, output)
    return replace(outcome, tuning={"candidates": [asdict(c) for c in tried.values()]})


def _try(
    spec: ExportSpec, scheme: str, path: Path, write: Callable[[str, Path], Exported]
) -> Candidate:
    """Exports in one scheme and judges its parity."""
    try:
        check(spec, BY_FORMAT[spec.format][scheme])
        outcome = write(scheme, path)
    except _REFUSALS as error:
        return Candidate(scheme, str(error))
    report = outcome.parity
    size = outcome.artifact.size_bytes
    return Candidate(scheme, "; ".join(report.failures), None, size, report.sqnr_db)


def _with_times(tried: Mapping[str, Candidate], paths: Mapping[str, Path]) -> dict[str, Candidate]:
    """Adds the latencies of the candidates that are still in the race."""
    racing = [name for name, candidate in tried.items() if not candidate.why_not]
    times = time_files([paths[name] for name in racing], rounds=ROUNDS) if racing else []
    medians = {name: median(runs) / 1e6 for name, runs in zip(racing, times, strict=True)}
    return {name: replace(c, median_ms=medians.get(name)) for name, c in tried.items()}


class _Judge:
    """Refuses files that lose too many points of accuracy."""

    def __init__(self, loaded: LoadedModel, dataset: Dataset, max_drop: float) -> None:
        self.dataset = dataset
        self.max_drop = max_drop
        self.whole = accuracy.measure(KerasSession(loaded.model), dataset).accuracy.top1

    def __call__(self, candidate: Candidate, path: Path) -> Candidate:
        """Returns the candidate with the points that it loses."""
        session = engine_of(path.suffix[1:]).open_session(path, trusted=True)
        try:
            drop = 100 * (self.whole - accuracy.measure(session, self.dataset).accuracy.top1)
        finally:
            session.close()
        worse = f"loses {drop:.2f} points, more than {self.max_drop:g}"
        return replace(candidate, drop=drop, why_not=worse if drop > self.max_drop else "")


def _fastest(
    tried: Mapping[str, Candidate], paths: Mapping[str, Path], judge: _Judge | None
) -> tuple[str | None, dict[str, Candidate]]:
    """Returns the fastest candidate that the judge lets pass, and why the others are not it."""
    found = dict(tried)
    taken = None
    racing = [c for c in tried.values() if c.median_ms is not None]
    for candidate in sorted(racing, key=lambda c: c.median_ms or 0.0):
        name = candidate.scheme
        if taken is not None:
            found[name] = replace(candidate, why_not=f"slower than {taken}")
            continue
        found[name] = candidate if judge is None else judge(candidate, paths[name])
        taken = None if found[name].why_not else name
    return taken, found
