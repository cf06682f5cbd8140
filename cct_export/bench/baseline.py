"""Saved results: what they can be compared with, and measuring their rows again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cct_export import machine
from cct_export.bench import record, regression
from cct_export.errors import InvalidRequest
from cct_export.records import BenchResult, MachineInfo
from cct_export.specs import BenchJob, BenchSpec, Delegation


def saved(path: Path) -> list[BenchResult]:
    """Reads saved results, with a warning on those of another machine; raises ``InvalidData``."""
    this_machine = machine.describe()
    results = []
    for row in record.read(path):
        differences = regression.differences(row.machine, this_machine)
        warning = f"of another machine ({'; '.join(differences)})"
        warnings = (*row.warnings, warning) if differences else row.warnings
        results.append(dataclasses.replace(row, warnings=warnings))
    return results


def check_rows(
    before: Sequence[BenchResult], now: Sequence[BenchResult], names: tuple[str, str]
) -> None:
    """Refuses to compare two records whose rows were measured differently.

    Raises:
        InvalidRequest: another number of rows, or another setting in one of them.
    """
    if len(now) != len(before):
        raise InvalidRequest(f"{names[0]} has {len(before)} rows, {names[1]} {len(now)}")
    for then, row in zip(before, now, strict=True):
        if regression.setting(then) != regression.setting(row):
            raise InvalidRequest(
                f"rows do not belong together: {regression.subject(then)} (p{then.headline}), "
                f"{regression.subject(row)} (p{row.headline})"
            )


def check_machine(before: BenchResult, now: MachineInfo, any_machine: bool) -> None:
    """Refuses to compare with another machine unless ``any_machine``; ``InvalidRequest``."""
    differences = regression.differences(before.machine, now)
    if differences and not any_machine:
        raise InvalidRequest(
            f"the baseline is of another machine ({'; '.join(differences)}): "
            "--any-machine compares all the same"
        )


def check_this_machine(before: Sequence[BenchResult], any_machine: bool) -> None:
    """Refuses, before anything is measured, a local baseline of another machine."""
    if {row.device for row in before} == {"local"}:
        this_machine = machine.describe()
        for row in before:
            check_machine(row, this_machine, any_machine)


def jobs_again(before: Sequence[BenchResult], paths: Sequence[Path]) -> tuple[str, list[BenchJob]]:
    """Returns the device of a baseline, and the jobs that measure its rows again.

    Args:
        before: the baseline.
        paths: what to measure, row by row; the paths of the baseline if empty.

    Raises:
        InvalidRequest: another number of paths, or rows of several devices.
    """
    paths = paths or [Path(row.artifact.path) for row in before]
    if len(paths) != len(before):
        raise InvalidRequest(
            f"the baseline has {len(before)} rows: name as many artifacts, not {len(paths)}"
        )
    devices = sorted({row.device for row in before})
    if len(devices) > 1:
        raise InvalidRequest(
            f"the baseline is of {len(devices)} devices ({', '.join(devices)}): a record "
            "of each can be checked by itself"
        )
    jobs = [BenchJob(path, _spec(row)) for path, row in zip(paths, before, strict=True)]
    return devices[0], jobs


def _spec(row: BenchResult) -> BenchSpec:
    """Returns what an earlier result was measured on."""
    runtime = row.runtime
    engine = "keras" if runtime.name.startswith("keras") else runtime.name
    delegation = Delegation(
        runtime.requested, tuple(runtime.options.items()), runtime.allow_fallback
    )
    return BenchSpec(engine, runtime.threads, row.batch, delegation)
