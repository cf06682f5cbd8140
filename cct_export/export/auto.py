"""``auto``: the fastest scheme here, of one engine or several, that meets the constraints."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from cct_export.bounds import exceeds
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
from cct_export.export import candidate, placing
from cct_export.export.candidate import CandidateFile
from cct_export.export.workspace import Workspace
from cct_export.quantize.schemes import fast_schemes
from cct_export.records import Exported, TriedScheme
from cct_export.runtimes import ENGINES, engine_name
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import Session
from cct_export.specs import SUFFIXES, ExportRequest, ExportSpec
from cct_export.text import plural

ROUNDS = 15
BURST = 20
FIRST_ROUNDS, FIRST_BURST = 3, 5
# How many times as long as the fastest a file may take in the first runs to be timed further.
CLOSE = 4.0
# Errors that rule out one scheme, and not the others.
_REFUSALS = (InvalidRequest, UnsupportedScheme, ConversionError, InvalidArtifact, EngineFailed)


def export(workspace: Workspace, requests: Sequence[ExportRequest]) -> Exported:
    """Builds all schemes, measures, and writes the fastest file that meets the constraints.

    Args:
        workspace: the model, with what its exports share.
        requests: one for each engine to choose from, with the same constraints.

    Raises:
        CCTExportError: no scheme meets the constraints, or any reason that an export has.
    """
    if requests[0].constraints.max_drop is not None and workspace.dataset is None:
        raise InvalidRequest("--max-drop needs an accuracy: give labelled images with --data")
    files: dict[str, CandidateFile] = {}
    rows: dict[str, TriedScheme] = {}
    wanted = _by_name(requests)
    for number, (name, request) in enumerate(wanted.items(), start=1):
        with workspace.stage(f"scheme {number}/{len(wanted)}, {name}"):
            rows[name], file = _try(workspace, request)
        if file is not None:
            files[name] = file
    chosen, rows = _fastest(workspace, requests[0].constraints.max_drop, rows, files)
    if chosen is None:
        constraints = requests[0].constraints
        given = constraints.min_sqnr_db is not None or constraints.max_drop is not None
        advice = "meets the constraints ({}): loosen them" if given else "can be used ({})"
        raise CCTExportError(f"no scheme {advice.format(_reasons(rows))}")
    exported = placing.write(workspace, files[chosen])
    return replace(exported, candidates=tuple(rows.values()))


def _by_name(requests: Sequence[ExportRequest]) -> dict[str, ExportRequest]:
    """Returns a request for each engine and scheme, by what people call the two."""
    named = {}
    for request in requests:
        engine = f"{engine_name(request.spec)} " if len(requests) > 1 else ""
        for scheme in fast_schemes(request.spec.format):
            spec = replace(request.spec, scheme=scheme)
            named[f"{engine}{scheme}"] = replace(request, spec=spec)
    return named


def _try(workspace: Workspace, request: ExportRequest) -> tuple[TriedScheme, CandidateFile | None]:
    """Builds one scheme; returns its row, and its file if that passed parity."""
    row = TriedScheme(request.spec.scheme, engine=engine_name(request.spec))
    try:
        file = candidate.build(workspace, request, mixed_precision=False)
    except _REFUSALS as error:
        return replace(row, why_not=_reason(error, request.spec)), None
    row = replace(
        row,
        why_not="; ".join(file.parity.failures),
        size_bytes=file.artifact.size_bytes,
        sqnr_db=file.parity.sqnr_db,
    )
    return row, file if file.parity.passed else None


def _reason(error: CCTExportError, spec: ExportSpec) -> str:
    """Returns why a scheme is not among the candidates, in a few words where they are known."""
    needs = error.needs if isinstance(error, UnsupportedScheme) else ""
    if not needs:
        return str(error).rpartition(f" as {spec.format} {spec.scheme}: ")[2]
    # Options of one format are those of its own command.
    command = f"cct-export {spec.format} " if spec.engine and needs.startswith("--") else ""
    return f"needs {command}{needs}"


def _reasons(rows: Mapping[str, TriedScheme]) -> str:
    """Returns why each scheme was not chosen; those with the same reason share it."""
    names: dict[str, list[str]] = {}
    for name, row in rows.items():
        names.setdefault(row.why_not, []).append(name)
    return "; ".join(f"{', '.join(all)}: {why_not}" for why_not, all in names.items())


def _fastest(
    workspace: Workspace,
    max_drop: float | None,
    rows: Mapping[str, TriedScheme],
    files: Mapping[str, CandidateFile],
) -> tuple[str | None, dict[str, TriedScheme]]:
    """Returns the fastest scheme that loses no more accuracy than allowed, and all rows."""
    rows = dict(rows)
    chosen = None
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            name: Path(folder, f"{name}{SUFFIXES[file.artifact.format]}")
            for name, file in files.items()
        }
        for name, path in paths.items():
            files[name].write(path)
        workspace.progress(f"timing {plural(len(paths), 'file')}")
        medians = _medians_ms({path: rows[name].engine for name, path in paths.items()})
        drop_of = _AccuracyDrop(workspace)
        for median_ms, name in sorted(zip(medians, paths, strict=True)):
            row = replace(rows[name], median_ms=median_ms)
            if chosen is not None:
                row = replace(row, why_not=f"slower than {chosen}")
            elif max_drop is not None:
                drop = drop_of(paths[name], row.engine)
                why_not = f"loses {drop:.2f} points, more than {max_drop:g}"
                row = replace(row, drop=drop, why_not=why_not if exceeds(drop, max_drop) else "")
            rows[name] = row
            if chosen is None and not row.why_not:
                chosen = name
    return chosen, rows


def _medians_ms(engines: Mapping[Path, str]) -> list[float]:
    """Returns the median latency of each file in its engine, interleaved, one thread.

    Files whose fastest of a few runs is far behind keep the median of these.
    """
    if not engines:
        return []
    times = _times(engines, rounds=FIRST_ROUNDS, burst=FIRST_BURST)
    limit = CLOSE * min(map(min, times.values()))
    close = {path: engine for path, engine in engines.items() if min(times[path]) <= limit}
    times |= _times(close, rounds=ROUNDS, burst=BURST, trial=False)
    return [median(times[path]) / 1e6 for path in engines]


def _times(engines: Mapping[Path, str], **runs: Any) -> dict[Path, tuple[int, ...]]:
    times = time_files(list(engines), engines=list(engines.values()), **runs)
    return dict(zip(engines, times, strict=True))


class _AccuracyDrop:
    """Points of top-1 accuracy that a file loses against its model, on the test split."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._reference: float | None = None

    def __call__(self, path: Path, engine: str) -> float:
        if self._reference is None:
            self._reference = self._top1(KerasSession(self._workspace.loaded))
        session = ENGINES[engine].open_session(path, trusted=True)
        try:
            return 100 * (self._reference - self._top1(session))
        finally:
            session.close()

    def _top1(self, session: Session) -> float:
        dataset = self._workspace.dataset
        assert dataset is not None, "checked before any scheme was tried"
        progress = self._workspace.counted("measuring accuracy, image")
        return accuracy.measure(session, dataset=dataset, progress=progress).accuracy.top1
