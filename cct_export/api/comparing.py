"""Measurements side by side, and against earlier ones."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.api.measuring import _silent, binary_for, measured, timing_of
from cct_export.errors import InvalidRequest
from cct_export.specs import BenchJob, BenchPasses, BenchSpec, Delegation

if TYPE_CHECKING:
    from cct_export.bench.regression import Verdict
    from cct_export.records import BenchResult

# A gate needs to know how much one process differs from the next.
CHECK_REPEATS = 5
CHECK_SECONDS = 5.0


def compare(
    sources: Sequence[str | Path],
    threads: int = 1,
    batch: int = 1,
    data: str | None = None,
    accuracy: bool = False,
    operators: bool = False,
    profile: str = "quick",
    device: str = "local",
    benchmark_binary: str | Path | None = None,
    progress: Callable[[str], None] = _silent,
    **timing: Any,
) -> "list[BenchResult]":
    """Puts artifacts, models and saved results side by side, the first one as the reference.

    Args:
        sources: ``.tflite`` and ``.onnx`` files and Keras models, which are measured in turn, and
            records that ``cct-bench --json`` wrote, which are read.
        threads: of every engine.
        batch: images per run.
        data: labelled images that accuracy is measured on.
        accuracy: measure accuracy too; needs ``data``.
        operators: measure the time of each operator too.
        profile: see ``bench``.
        device: where to measure what is not a record, see ``bench``.
        benchmark_binary: see ``bench``; it measures files of its own format only.
        progress: called with what is done now.
        **timing: see ``bench``.

    Returns:
        The results, in the order of the sources.

    Raises:
        InvalidData: a record cannot be read.
        CCTExportError: none of the artifacts can be measured.
    """
    from cct_export.api.measuring import OPERATOR_RUNS
    from cct_export.bench import record

    if not sources:
        raise InvalidRequest("nothing to compare: name artifacts, models or saved results")
    if accuracy and data is None:
        raise InvalidRequest("accuracy is measured on labelled images: name them with data")
    rows = [
        _elsewhere(record.read(Path(source)))
        if _is_record(source)
        else _job(source, threads, batch)
        for source in sources
    ]
    jobs = [row for row in rows if isinstance(row, BenchJob)]
    passes = BenchPasses(
        data if accuracy else None,
        OPERATOR_RUNS if operators else 0,
        benchmark_binary=binary_for([device], benchmark_binary),
    )
    plan = timing_of(profile, **timing)
    found = iter(measured(jobs, plan, passes, progress, [device]) if jobs else ())
    results: list[BenchResult] = []
    for row in rows:
        results += [next(found)] if isinstance(row, BenchJob) else row
    return results


def _is_record(source: str | Path) -> bool:
    return str(source).endswith(".json")


def _elsewhere(rows: "list[BenchResult]") -> "list[BenchResult]":
    """Returns saved results, with a warning on those of another machine."""
    from cct_export import machine
    from cct_export.bench.regression import differences

    here = machine.describe()
    return [
        dataclasses.replace(row, warnings=(*row.warnings, f"of another machine ({'; '.join(how)})"))
        if (how := differences(row.machine, here))
        else row
        for row in rows
    ]


def _job(source: str | Path, threads: int, batch: int) -> BenchJob:
    from cct_export.runtimes import ENGINE_NAMES

    path = Path(source)
    format = path.suffix[1:] if path.suffix in (".tflite", ".onnx") else "keras"
    return BenchJob(path, BenchSpec(ENGINE_NAMES[format], threads, batch))


def check(
    baseline: str | Path,
    sources: Sequence[str | Path] = (),
    max_regression: float = 0.05,
    max_drop: float = 0.5,
    data: str | None = None,
    any_machine: bool = False,
    benchmark_binary: str | Path | None = None,
    progress: Callable[[str], None] = _silent,
    **timing: Any,
) -> "tuple[list[Verdict], list[BenchResult]]":
    """Tells whether artifacts became slower or worse since a baseline.

    Args:
        baseline: a record that ``cct-bench --json`` wrote, best with ``--repeats 5``.
        sources: what to measure now, row by row of the baseline and on its device; by default
            the same paths. One that ends in ``.json`` is a record of the measurement, made
            elsewhere.
        max_regression: relative growth of the latency that is allowed, 0.05 for 5 %.
        max_drop: points of top-1 that may be lost.
        data: labelled images; by default those of the baseline, where it has an accuracy.
        any_machine: compare records of different machines.
        benchmark_binary: see ``bench``, for a baseline of a phone.
        progress: called with what is done now.
        **timing: see ``bench``; by default five repeats and five seconds in all.

    Returns:
        A verdict per row of the baseline, and the results that they are about.

    Raises:
        InvalidRequest: another machine, or another number of rows.
        InvalidData: a record cannot be read.
    """
    from cct_export import machine
    from cct_export.bench import record, regression

    limits = regression.Limits(max_regression, max_drop)
    then = record.read(Path(baseline))
    saved = record.read(Path(sources[0])) if len(sources) == 1 and _is_record(sources[0]) else None
    if saved is not None and len(saved) != len(then):
        raise InvalidRequest(f"{baseline} has {len(then)} rows, {sources[0]} {len(saved)}")
    devices = {row.device for row in then}
    if saved is None and devices == {"local"}:  # found out before anything is measured in vain
        here = machine.describe()
        for row in then:
            _check_machine(row, here, any_machine)
    now = (
        _measured_again(then, sources, data, benchmark_binary, progress, timing)
        if saved is None
        else saved
    )
    for row, other in zip(then, now, strict=True):
        if saved is not None:
            _check_setting(row, other)
        _check_machine(row, other.machine, any_machine)
    verdicts = [regression.judge(*pair, limits) for pair in zip(then, now, strict=True)]
    return verdicts, now


def _check_setting(then: "BenchResult", now: "BenchResult") -> None:
    """Refuses to compare what was measured otherwise."""
    from cct_export.bench import regression

    if regression.setting(then) != regression.setting(now):
        raise InvalidRequest(
            f"rows do not belong together: {regression.subject(then)} (p{then.headline}), "
            f"{regression.subject(now)} (p{now.headline})"
        )


def _check_machine(then: "BenchResult", machine: dict[str, Any], any_machine: bool) -> None:
    """Refuses to compare with another machine unless told to."""
    from cct_export.bench import regression

    differing = regression.differences(then.machine, machine)
    if differing and not any_machine:
        raise InvalidRequest(
            f"the baseline is of another machine ({'; '.join(differing)}): "
            "--any-machine compares all the same"
        )


def _measured_again(
    then: "Sequence[BenchResult]",
    sources: Sequence[str | Path],
    data: str | None,
    benchmark_binary: str | Path | None,
    progress: Callable[[str], None],
    timing: dict[str, Any],
) -> "list[BenchResult]":
    paths = [Path(source) for source in sources or [row.artifact["path"] for row in then]]
    if len(paths) != len(then):
        raise InvalidRequest(
            f"the baseline has {len(then)} rows: name as many artifacts, not {len(paths)}"
        )
    jobs = [BenchJob(path, _spec(row)) for path, row in zip(paths, then, strict=True)]
    scored = [row.accuracy.data for row in then if row.accuracy]
    wanted = {"repeats": CHECK_REPEATS, "min_s": CHECK_SECONDS} | {
        name: value for name, value in timing.items() if value is not None
    }
    devices = {row.device for row in then}
    if len(devices) > 1:
        raise InvalidRequest(
            f"the baseline is of {len(devices)} devices ({', '.join(sorted(devices))}): a record "
            "of each can be checked by itself"
        )
    passes = BenchPasses(
        (data or scored[0]) if scored else None,
        benchmark_binary=binary_for([*devices], benchmark_binary),
    )
    found = measured(jobs, timing_of("quick", **wanted), passes, progress, [*devices])
    return [
        dataclasses.replace(row, headline=before.headline)
        for row, before in zip(found, then, strict=True)
    ]


def _spec(row: "BenchResult") -> BenchSpec:
    """Returns on what an earlier result was measured."""
    runtime = row.runtime
    engine = "keras" if runtime["name"].startswith("keras") else runtime["name"]
    delegation = Delegation(
        runtime.get("asked", runtime["delegate"]),
        tuple((name, value) for name, value in runtime.get("options", {}).items()),
        bool(runtime.get("allow_fallback")),
    )
    return BenchSpec(engine, runtime["threads"], row.batch, delegation)
