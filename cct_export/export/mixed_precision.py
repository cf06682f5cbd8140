"""As much in integers as a bound on the noise of the logits allows."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from cct_export.data.dataset import Images
from cct_export.evaluation.latency import time_files
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import Draft
from cct_export.export.sensitivity import errors
from cct_export.graph.steps import AddConstant, Conv, Dense
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import Logits, run
from cct_export.specs import CalibrationSpec

ROUNDS = 20


@dataclass(frozen=True)
class Kept:
    """What a bound costs.

    Attributes:
        floats: steps that went back to float, in that order.
        before_db: signal to noise ratio of the logits with every step as the scheme has it.
        after_db: the same with those steps in float.
        slowdown: latency after over latency before, on this machine, one thread.
    """

    floats: tuple[str, ...]
    before_db: float
    after_db: float
    slowdown: float


def keep(
    draft: Draft,
    calibration: CalibrationSpec,
    bound_db: float,
    judges: Images,
    wanted: Logits,
    ranking: Images,
) -> Kept:
    """Puts the worst steps back to float until the file itself, run by its engine, meets a bound.

    Args:
        draft: what is quantized.
        calibration: how; its ``floats`` stay float in any case.
        bound_db: signal to noise ratio of the logits at least.
        judges: images that the bound holds on.
        wanted: logits of the model for them.
        ranking: images that say which steps are the worst: those whose noise alone is largest.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, last = (Path(folder, f"{name}.{draft.spec.format}") for name in ("first", "last"))
        before = after = _reached(draft, calibration, first, judges, wanted)
        last.write_bytes(first.read_bytes())
        floats: tuple[str, ...] = ()
        candidates = [] if before >= bound_db else _worst_first(draft, calibration, ranking)
        for name in candidates:
            if after >= bound_db:
                break
            if not _computes(draft, name, (*calibration.floats, *floats)):
                continue  # a pool between floats already is one
            floats = (*floats, name)
            tried = replace(calibration, floats=(*calibration.floats, *floats))
            after = _reached(draft, tried, last, judges, wanted)
        times = time_files([first, last], rounds=ROUNDS) if floats else [(1,), (1,)]
    return Kept(floats, before, after, median(times[1]) / median(times[0]))


def _worst_first(draft: Draft, calibration: CalibrationSpec, images: Images) -> list[str]:
    found = errors(draft, draft.quantized(calibration), images, sensitivity=True)
    return [error.step for error in sorted(found, key=lambda error: error.alone_db or 0.0)]


def _computes(draft: Draft, name: str, floats: tuple[str, ...]) -> bool:
    """Whether a step still has integers with some steps in float."""
    step = draft.plan.producer(name)
    weighted = isinstance(step, AddConstant | Conv | Dense)
    return weighted or name in {one for some in draft.modes(floats).values() for one in some}


def _reached(
    draft: Draft, calibration: CalibrationSpec, path: Path, images: Images, wanted: Logits
) -> float:
    """Writes a file and returns its signal to noise ratio."""
    path.write_bytes(draft.file(draft.quantized(calibration)))
    session = engine_of(draft.spec.format).open_session(path, trusted=True)
    try:
        return logits_sqnr_db(wanted, run(session, images))
    finally:
        session.close()
