"""An export with wishes: the best ranges, a bound on the noise, or the best scheme."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cct_export.data import sampling
from cct_export.errors import InvalidRequest
from cct_export.export import auto, mixed_precision, ranges
from cct_export.export.draft import draft
from cct_export.export.pipeline import Exported, check, export
from cct_export.importers import LoadedModel, open_dataset
from cct_export.model.checkpoint import image_shape
from cct_export.quantize.schemes import scheme
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import run
from cct_export.specs import AUTO, CalibrationSpec, ExportSpec, TuningSpec

# Training images that say which step is the worst.
RANKING = 50


def export_tuned(
    loaded: LoadedModel,
    spec: ExportSpec,
    output: Path,
    data_name: str | None,
    calibration: CalibrationSpec,
    wishes: TuningSpec,
    parity_samples: int,
) -> Exported:
    """Exports as ``export`` does, after what the wishes ask for was found out.

    Args:
        loaded: the model.
        spec: what to make of it.
        output: the file to write.
        data_name: what ``--data`` says.
        calibration: how integers are chosen.
        wishes: what to find out first.
        parity_samples: test images that prove parity.

    Raises:
        CCTExportError: any of its kinds; then no file was written or changed.
    """
    if spec.scheme == AUTO:
        return auto.choose(loaded, spec, output, data_name, calibration, wishes, parity_samples)
    if wishes.max_drop is not None:
        raise InvalidRequest("--max-drop is for --quantize auto, which chooses by it")
    chosen = scheme(spec.scheme, spec.format)
    found: dict[str, Any] = {}
    if chosen.integers_only and wishes.min_sqnr_db is not None:
        raise InvalidRequest(
            f"{chosen.name} has integers only: no step can go back to float for "
            f"{wishes.min_sqnr_db:g} dB; take int8"
        )
    if chosen.rounds and (wishes.best_ranges or wishes.min_sqnr_db is not None):
        check(spec, chosen)
        dataset, shape = open_dataset(loaded, data_name), image_shape(loaded.model)
        started = draft(loaded, spec, chosen, dataset, calibration.samples)
        if started is None:
            raise InvalidRequest(
                f"--calibrate best and --min-sqnr with integers choose step by step, and those of "
                f"{loaded.source}, which is no CCT, are not known: leave them out"
            )
        ranking = sampling.ranking(dataset, shape, RANKING).images
        if wishes.best_ranges:
            calibration = replace(calibration, methods=ranges.best(started, ranking))
        if wishes.min_sqnr_db is not None:
            judges = sampling.parity(dataset, shape, parity_samples).images
            wanted = run(KerasSession(loaded.model), judges)
            kept = mixed_precision.keep(
                started, calibration, wishes.min_sqnr_db, judges, wanted, ranking
            )
            calibration = replace(calibration, floats=(*calibration.floats, *kept.floats))
            found["bound"] = asdict(kept) | {"min_sqnr_db": wishes.min_sqnr_db}
    outcome = export(
        loaded, spec, output, data_name, calibration, parity_samples, wishes.min_sqnr_db
    )
    return replace(outcome, tuning=found)
