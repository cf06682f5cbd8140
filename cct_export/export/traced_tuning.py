"""Choosing the calibration method and the float operators of models that are not lowered."""

import heapq
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cct_export.bounds import falls_short
from cct_export.data.dataset import Images
from cct_export.evaluation import parity
from cct_export.export.traced_draft import TracedDraft
from cct_export.export.tuning import slowdown
from cct_export.export.workspace import Workspace
from cct_export.records import MixedPrecision, ParityReport
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import Logits, run
from cct_export.specs import METHODS, CalibrationSpec

# Images that rank operators, and parts that a group of operators is divided into.
SAMPLES = 16
PARTS = 8
# Files that rank operators at most: one of a large model takes seconds.
MEASUREMENTS = 24
# Each file with more operators in float has so many times as many: few files are tried.
GROWTH = 2


def best_method(workspace: Workspace, draft: TracedDraft) -> str:
    """Returns the calibration method whose file has the highest SQNR of the logits."""
    images = workspace.ranking_images.images
    reference = _logits(draft, draft.float_file, images)
    sqnrs = {
        method: draft.sqnr_db(
            reference, _logits(draft, draft.written(method, draft.operators), images)
        )
        for method in METHODS
    }
    return max(sqnrs, key=lambda method: sqnrs[method])


def quantize_within(
    workspace: Workspace, draft: TracedDraft, calibration: CalibrationSpec, min_sqnr_db: float
) -> tuple[bytes, CalibrationSpec, MixedPrecision]:
    """Keeps operators in float until the file, run by its engine, passes parity and the bound.

    Those whose quantization alone costs most go first. Where nothing would be left of the scheme,
    all are quantized, and the file misses what it has to pass; a bound that the user set may cost
    all.

    Args:
        workspace: the images and reference logits that the bound holds on.
        draft: what is quantized.
        calibration: how, with one method.
        min_sqnr_db: lowest SQNR of the logits in dB; 0 for that of the scheme's policy.

    Returns:
        The file as ``draft.written`` makes it, how it was calibrated, and what that cost.
    """
    method = str(calibration.methods)

    def measured(floats: Sequence[str]) -> tuple[bytes, ParityReport]:
        chosen = [name for name in draft.operators if name not in floats]
        content = draft.written(method, chosen)
        return content, _parity(workspace, draft, content)

    def misses(report: ParityReport) -> bool:
        return not report.passed or falls_short(report.sqnr_db, min_sqnr_db)

    first, before = measured(())
    content, after = first, before
    floats: list[str] = []
    if misses(before):
        workspace.progress("looking for operators to keep in float")
        wanted = 1
        for name in _worst_first(draft.operators, _error_of(workspace, draft, method)):
            floats.append(name)
            if len(floats) < min(wanted, len(draft.operators)):
                continue
            if len(floats) == len(draft.operators) and not min_sqnr_db:
                content, after, floats = first, before, []
                break
            content, after = measured(floats)
            workspace.progress(f"{after.sqnr_db:.1f} dB with {len(floats)} operators in float")
            if not misses(after):
                break
            wanted = int(len(floats) * GROWTH) + 1
    ratio = _slowdown(draft, first, content) if floats else 1.0
    cost = MixedPrecision(tuple(floats), before.sqnr_db, after.sqnr_db, ratio, min_sqnr_db)
    return content, replace(calibration, floats=tuple(floats)), cost


def _parity(workspace: Workspace, draft: TracedDraft, content: bytes) -> ParityReport:
    """Compares a file with the Keras model."""
    images = workspace.parity_images
    return parity.compare(
        workspace.reference,
        candidate=_logits(draft, content, images.images),
        scheme=draft.scheme.name,
        names=(workspace.loaded.source, draft.spec.format),
        images=images.origin,
        outputs=workspace.loaded.outputs,
    )


def _worst_first(
    operators: Sequence[str], error_db: Callable[[Sequence[str]], float]
) -> Iterator[str]:
    """Yields operators in the order of the error that quantizing each causes, the largest first.

    The worst group of neighbours is divided until it is one operator, or ``MEASUREMENTS`` are made:
    then its operators come together.

    Args:
        operators: in the order of computation.
        error_db: returns the SQNR with some operators quantized.
    """
    groups: list[tuple[float, int, Sequence[str]]] = []
    measurements = 0

    def divide(names: Sequence[str], start: int) -> None:
        nonlocal measurements
        size = max(1, -(-len(names) // PARTS))
        for first in range(0, len(names), size):
            part = names[first : first + size]
            heapq.heappush(groups, (error_db(part), start + first, part))
            measurements += 1

    divide(operators, 0)
    while groups:
        _, start, names = heapq.heappop(groups)
        if len(names) == 1 or measurements >= MEASUREMENTS:
            yield from names
        else:
            divide(names, start)


def _error_of(
    workspace: Workspace, draft: TracedDraft, method: str
) -> Callable[[Sequence[str]], float]:
    """Returns a function from operators to the SQNR with only those quantized."""
    images = workspace.ranking_images.images[:SAMPLES]
    reference = _logits(draft, draft.float_file, images)

    def error_db(operators: Sequence[str]) -> float:
        return draft.sqnr_db(reference, _logits(draft, draft.written(method, operators), images))

    return error_db


def _logits(draft: TracedDraft, content: bytes, images: Images) -> Logits:
    """Returns the logits of a file, run by its engine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"candidate.{draft.spec.format}")
        path.write_bytes(draft.finished(content, {}))
        session = engine_of(draft.spec.format).open_session(path, trusted=True)
        try:
            return run(session, images)
        finally:
            session.close()


def _slowdown(draft: TracedDraft, first: bytes, last: bytes) -> float:
    """Returns the latency of ``last`` over that of ``first``."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.{draft.spec.format}") for name in ("first", "last")]
        for path, content in zip(paths, (first, last), strict=True):
            path.write_bytes(draft.finished(content, {}))
        return slowdown(*paths)
