"""``--quantize auto``: the fastest scheme on this machine that meets the constraints."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

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
from cct_export.runtimes import engine_of, format_of
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import Session
from cct_export.specs import ExportRequest
from cct_export.text import plural

ROUNDS = 15
# Errors that rule out one scheme, and not the others.
_REFUSALS = (InvalidRequest, UnsupportedScheme, ConversionError, InvalidArtifact, EngineFailed)


def export(workspace: Workspace, request: ExportRequest) -> Exported:
    """Builds all schemes, measures, and writes the fastest file that meets the constraints.

    Raises:
        CCTExportError: no scheme meets the constraints, or any reason that an export has.
    """
    if request.constraints.max_drop is not None and workspace.dataset is None:
        raise InvalidRequest("--max-drop needs an accuracy: give labelled images with --data")
    files: dict[str, CandidateFile] = {}
    rows: dict[str, TriedScheme] = {}
    schemes = fast_schemes(request.spec.format)
    for number, scheme in enumerate(schemes, start=1):
        with workspace.stage(f"scheme {number}/{len(schemes)}, {scheme}"):
            row, file = _try(workspace, request, scheme)
        rows[scheme] = row
        if file is not None:
            files[scheme] = file
    chosen, rows = _fastest(workspace, request, rows, files)
    if chosen is None:
        reasons = "; ".join(f"{row.scheme}: {row.why_not}" for row in rows.values())
        raise CCTExportError(f"no scheme meets the constraints ({reasons}): loosen them")
    exported = placing.write(workspace, files[chosen])
    return replace(exported, candidates=tuple(rows.values()))


def _try(
    workspace: Workspace, request: ExportRequest, scheme: str
) -> tuple[TriedScheme, CandidateFile | None]:
    """Builds one scheme; returns its row, and its file if that passed parity."""
    spec = replace(request.spec, scheme=scheme)
    try:
        file = candidate.build(workspace, replace(request, spec=spec), mixed_precision=False)
    except _REFUSALS as error:
        return TriedScheme(scheme, _reason(error)), None
    row = TriedScheme(
        scheme,
        "; ".join(file.parity.failures),
        size_bytes=file.artifact.size_bytes,
        sqnr_db=file.parity.sqnr_db,
    )
    return row, file if file.parity.passed else None


def _reason(error: CCTExportError) -> str:
    """Returns why a scheme is not among the candidates, in a few words where they are known."""
    needs = error.needs if isinstance(error, UnsupportedScheme) else ""
    return f"needs {needs}" if needs else str(error)


def _fastest(
    workspace: Workspace,
    request: ExportRequest,
    rows: Mapping[str, TriedScheme],
    files: Mapping[str, CandidateFile],
) -> tuple[str | None, dict[str, TriedScheme]]:
    """Returns the fastest scheme that loses no more accuracy than allowed, and all rows."""
    rows = dict(rows)
    chosen = None
    with tempfile.TemporaryDirectory() as folder:
        paths = {scheme: Path(folder, f"{scheme}.{request.spec.format}") for scheme in files}
        for scheme, path in paths.items():
            path.write_bytes(files[scheme].content)
        workspace.progress(f"timing {plural(len(paths), 'file')}")
        medians = _medians_ms(list(paths.values()))
        drop_of = _AccuracyDrop(workspace)
        for median_ms, scheme in sorted(zip(medians, paths, strict=True)):
            row = replace(rows[scheme], median_ms=median_ms)
            limit = request.constraints.max_drop
            if chosen is not None:
                row = replace(row, why_not=f"slower than {chosen}")
            elif limit is not None:
                drop = drop_of(paths[scheme])
                why_not = f"loses {drop:.2f} points, more than {limit:g}"
                row = replace(row, drop=drop, why_not=why_not if exceeds(drop, limit) else "")
            rows[scheme] = row
            if chosen is None and not row.why_not:
                chosen = scheme
    return chosen, rows


def _medians_ms(paths: Sequence[Path]) -> list[float]:
    """Returns the median latency of each file, interleaved, one thread."""
    times = time_files(paths, rounds=ROUNDS) if paths else []
    return [median(runs) / 1e6 for runs in times]


class _AccuracyDrop:
    """Points of top-1 accuracy that a file loses against its model, on the test split."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._reference: float | None = None

    def __call__(self, path: Path) -> float:
        if self._reference is None:
            self._reference = self._top1(KerasSession(self._workspace.loaded))
        session = engine_of(format_of(path)).open_session(path, trusted=True)
        try:
            return 100 * (self._reference - self._top1(session))
        finally:
            session.close()

    def _top1(self, session: Session) -> float:
        dataset = self._workspace.dataset
        assert dataset is not None, "checked before any scheme was tried"
        progress = self._workspace.counted("measuring accuracy, image")
        return accuracy.measure(session, dataset=dataset, progress=progress).accuracy.top1
