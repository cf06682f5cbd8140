"""Measurements judged by a baseline."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.api.request import (
    benchmark_binary_of,
    check_data,
    check_has_model,
    check_job,
    check_source,
    is_record,
    timing_of_check,
)
from cct_export.errors import InvalidRequest
from cct_export.files import check_file
from cct_export.specs import (
    GROWTH,
    NO_OPTIONS,
    POINTS,
    BenchPasses,
    BenchPlan,
    ModelOptions,
)
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.bench.regression import Verdict
    from cct_export.records import BenchResult


def check(
    baseline: str | Path,
    *,
    sources: Sequence[str | Path] = (),
    max_regression: float = 0.05,
    max_drop: float = 0.5,
    data: str | None = None,
    any_machine: bool = False,
    device: str | None = None,
    delegates: Sequence[str] = (),
    delegate_options: Sequence[tuple[str, str]] = (),
    benchmark_binary: str | Path | None = None,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
    **timing: Any,
) -> "tuple[list[Verdict], list[BenchResult]]":
    """Tells whether artifacts became slower or less accurate since a baseline.

    A baseline may come from anyone: its device, the libraries and options of its delegates, and
    what would be downloaded are used only where the arguments name the same.

    Args:
        baseline: a record that ``cct-bench --json`` wrote, best with ``--repeats 5``.
        sources: what to measure now, row by row of the baseline and on its device; by default
            the same paths. One that ends in ``.json`` is a record of the measurement, made
            elsewhere.
        max_regression: relative growth of the latency that is allowed, 0.05 for 5 %.
        max_drop: points of top-1 accuracy that may be lost.
        data: labelled images; by default those of the baseline, where it has an accuracy.
        any_machine: compare records of different machines.
        device: the device of the baseline if that is not ``local``.
        delegates: those of its delegates that are libraries, such as ``external:/lib.so``.
        delegate_options: names and values of its delegates' options.
        benchmark_binary: the program that measures on ``adb``, for a baseline of a phone.
        options: how to load the baseline's models, see ``load``: a record does not say.
        progress: called with what runs now.
        **timing: fields of ``specs.Timing``; by default five repeats and five seconds in all.

    Returns:
        A verdict per row of the baseline, and the results that they are about.

    Raises:
        InvalidRequest: another machine, or another number of rows; the arguments lack what they
            have to name, or name what the baseline has not.
        InvalidData: a record cannot be read.

    Example:
        >>> verdicts, results = cct_export.check("baseline.json", max_regression=0.1)
        >>> [verdict.status for verdict in verdicts]
        ['pass']
    """
    from cct_export.bench import record, regression, run
    from cct_export.bench.baseline import UserChoice, remeasurement

    GROWTH.check("max_regression", max_regression)
    POINTS.check("max_drop", max_drop)
    limits = regression.Limits(max_regression, max_drop)
    check_file(Path(baseline))
    if not is_record(baseline):
        raise InvalidRequest(f"{baseline} is no record: name what `cct-bench --json` wrote")
    if data is not None:
        data = check_data(data)
    for source in sources:
        check_source(Path(source))
    timings = timing_of_check(**timing)
    before = record.read(Path(baseline))
    if len(sources) == 1 and is_record(sources[0]):
        now = record.read(Path(sources[0]))
        regression.check_rows(before, now, names=(str(baseline), str(sources[0])))
    else:
        paths = tuple(map(Path, sources))
        choice = UserChoice(paths, device, tuple(delegates), tuple(delegate_options), data)
        again = remeasurement(before, choice, name=str(baseline))
        regression.check_this_machine(before, any_machine)
        jobs = [
            dataclasses.replace(job, spec=dataclasses.replace(job.spec, options=options))
            for job in again.jobs
        ]
        check_has_model([job.path for job in jobs], options)
        for job in jobs:
            check_job(job)
        passes = BenchPasses(
            again.data,
            benchmark_binary=benchmark_binary_of([again.device], benchmark_binary),
            models=tuple(map(str, sources)),
        )
        plan = BenchPlan(timings, passes)
        devices = run.open_devices([again.device])
        measured = run.measure(jobs, plan, devices=devices, progress=progress)
        now = [
            dataclasses.replace(row, headline=then.headline)
            for row, then in zip(measured, before, strict=True)
        ]
    for then, row in zip(before, now, strict=True):
        regression.check_machine(then, row.machine, any_machine)
    verdicts = [regression.judge(*pair, limits) for pair in zip(before, now, strict=True)]
    return verdicts, now
