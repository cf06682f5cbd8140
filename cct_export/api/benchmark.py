"""Latency, memory and accuracy of files and models, side by side and against a baseline."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.api.export import default_output, export_requests
from cct_export.api.request import (
    benchmark_binary_of,
    check_data,
    check_export,
    check_job,
    check_source,
    engine_for,
    export_spec,
    labelled,
    timing_of,
    timing_of_check,
)
from cct_export.errors import InvalidRequest, ParityFailed
from cct_export.files import check_file
from cct_export.names import choose
from cct_export.specs import (
    DEFAULT_MODEL,
    GROWTH,
    IMAGES_PER_RUN,
    POINTS,
    REPEATS,
    RUNS,
    THREADS,
    BenchJob,
    BenchPasses,
    BenchPlan,
    BenchSpec,
    Delegation,
    ExportRequest,
)
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.bench.regression import Verdict
    from cct_export.records import BenchResult

OPERATOR_RUNS = 50


def benchmark(
    format: str,
    *,
    sources: str | Path | Sequence[str | Path] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    scheme: str = "none",
    data: str | None = None,
    accuracy: bool = False,
    delegate: str = "default",
    delegate_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    operators: bool = False,
    sustained_s: float = 0.0,
    profile: str = "quick",
    devices: Sequence[str] = ("local",),
    benchmark_binary: str | Path | None = None,
    progress: StatusProgress = no_progress,
    **timing: Any,
) -> "list[BenchResult]":
    """Measures artifacts of one format, interleaved, each in processes of its own.

    Args:
        format: ``tflite``, ``onnx`` or ``keras``.
        sources: artifacts of the format, or models, which are exported first; the shipped model
            if there is none.
        threads: thread counts to measure with.
        batches: images per run to measure with.
        scheme: quantization scheme of models that are exported first.
        data: images for the calibration and parity of models that are exported first, and the
            labelled images that accuracy is measured on.
        accuracy: measure accuracy too; needs ``data``.
        delegate: what the engine hands its work to, see ``cct_export.doctor``.
        delegate_options: names and values, as the delegate takes them.
        allow_fallback: whether operators that the delegate does not take may run elsewhere.
        operators: measure the time of each operator too.
        sustained_s: seconds of uninterrupted runs to measure too.
        profile: ``quick`` or ``strict``, see ``specs.PROFILES``.
        devices: where to measure: ``local``, ``ssh:USER@HOST[:PORT]``, ``adb[:SERIAL]``; several
            measure at the same time.
        benchmark_binary: the program that measures on ``adb``: LiteRT's ``benchmark_model``, or
            ``onnxruntime_perf_test``.
        progress: called with what runs now.
        **timing: fields of ``specs.Timing`` that differ from the profile's.

    Returns:
        A result per device, source, thread count and batch. One that could not be measured says
        why; one that failed parity on its golden images has no latency.

    Raises:
        CCTExportError: none of the artifacts can be measured.

    Example:
        >>> (result,) = cct_export.benchmark("tflite", sources="cct.tflite", threads=[2])
        >>> min(result.times_ns) / 1e6
    """
    from cct_export.bench import run
    from cct_export.runtimes import ENGINE_NAMES

    format = choose(format, ENGINE_NAMES, what="format")
    if not threads or not batches:
        raise InvalidRequest("name one number of threads and of images per run at least")
    if isinstance(devices, str):
        devices = [devices]
    names = [sources] if isinstance(sources, str | Path) else sources or (DEFAULT_MODEL,)
    passes = BenchPasses(
        labelled(accuracy, data),
        OPERATOR_RUNS if operators else 0,
        sustained_s,
        benchmark_binary_of(devices, benchmark_binary),
        tuple(map(str, names)),
    )
    plan = BenchPlan(timing_of(profile, **timing), passes)
    opened = run.open_devices(devices)
    for device in opened:
        delegate = device.choose_delegate(ENGINE_NAMES[format], delegate)
    delegation = Delegation(delegate, tuple((delegate_options or {}).items()), allow_fallback)
    specs = [
        BenchSpec(ENGINE_NAMES[format], count, batch, delegation)
        for count in threads
        for batch in batches
    ]
    for device in opened:
        device.check(specs, plan)
    exports = [_export_request(Path(name), format, scheme, data, max(batches)) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            Path(name) if request is None else _exported(name, request, Path(folder), progress)
            for name, request in zip(names, exports, strict=True)
        ]
        jobs = [BenchJob(path, spec) for path in paths for spec in specs]
        return run.measure(jobs, plan, devices=opened, progress=progress)


def compare(
    sources: Sequence[str | Path],
    *,
    threads: int = 1,
    batch: int = 1,
    data: str | None = None,
    accuracy: bool = False,
    delegate: str = "default",
    delegate_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    operators: bool = False,
    profile: str = "quick",
    device: str = "local",
    benchmark_binary: str | Path | None = None,
    progress: StatusProgress = no_progress,
    **timing: Any,
) -> "list[BenchResult]":
    """Measures artifacts and models, and puts them beside saved results.

    Args:
        sources: ``.tflite`` and ``.onnx`` files and Keras models, which are measured interleaved,
            and records that ``cct-bench --json`` wrote, which are read. The first is the reference.
        threads: of every engine.
        batch: images per run.
        data: labelled images that accuracy is measured on.
        accuracy: measure accuracy too; needs ``data``.
        delegate: what every engine hands its work to, see ``cct_export.doctor``.
        delegate_options: names and values, as the delegate takes them.
        allow_fallback: whether operators that the delegate does not take may run elsewhere.
        operators: measure the time of each operator too.
        profile: ``quick`` or ``strict``, see ``specs.PROFILES``.
        device: where to measure: ``local``, ``ssh:USER@HOST[:PORT]`` or ``adb[:SERIAL]``.
        benchmark_binary: the program that measures on ``adb``; it measures files of its own format
            only.
        progress: called with what runs now.
        **timing: fields of ``specs.Timing`` that differ from the profile's.

    Returns:
        The results, in the order of the sources.

    Raises:
        InvalidData: a record cannot be read.
        CCTExportError: none of the artifacts can be measured.

    Example:
        >>> cct_export.compare(["cct.tflite", "cct.onnx", "last-week.json"])
    """
    from cct_export.bench import record, run

    if isinstance(sources, str | Path):
        sources = [sources]
    THREADS.check("threads", threads)
    IMAGES_PER_RUN.check("batch", batch)
    if not sources:
        raise InvalidRequest("nothing to compare: name artifacts, models or saved results")
    passes = BenchPasses(
        labelled(accuracy, data),
        OPERATOR_RUNS if operators else 0,
        benchmark_binary=benchmark_binary_of([device], benchmark_binary),
        models=tuple(map(str, sources)),
    )
    plan = BenchPlan(timing_of(profile, **timing), passes)
    for source in sources:
        check_source(Path(source))
    (opened,) = run.open_devices([device])
    settings = tuple((delegate_options or {}).items())

    def job(source: Path) -> BenchJob:
        engine = engine_for(source)
        name = opened.choose_delegate(engine, delegate)
        delegation = Delegation(name, settings, allow_fallback)
        return BenchJob(source, BenchSpec(engine, threads, batch, delegation))

    rows = [
        record.read_for_comparison(Path(source)) if _is_record(source) else job(Path(source))
        for source in sources
    ]
    jobs = [row for row in rows if isinstance(row, BenchJob)]
    opened.check([job.spec for job in jobs], plan)
    measured = iter(run.measure(jobs, plan, devices=[opened], progress=progress) if jobs else ())
    results: list[BenchResult] = []
    for row in rows:
        results += [next(measured)] if isinstance(row, BenchJob) else row
    return results


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
    from cct_export.bench.baseline import Named, measured_again

    GROWTH.check("max_regression", max_regression)
    POINTS.check("max_drop", max_drop)
    limits = regression.Limits(max_regression, max_drop)
    check_file(Path(baseline))
    if not _is_record(baseline):
        raise InvalidRequest(f"{baseline} is no record: name what `cct-bench --json` wrote")
    if data is not None:
        data = check_data(data)
    for source in sources:
        check_source(Path(source))
    timings = timing_of_check(**timing)
    before = record.read(Path(baseline))
    if len(sources) == 1 and _is_record(sources[0]):
        now = record.read(Path(sources[0]))
        regression.check_rows(before, now, names=(str(baseline), str(sources[0])))
    else:
        paths = tuple(map(Path, sources))
        named = Named(paths, device, tuple(delegates), tuple(delegate_options), data)
        again = measured_again(before, named, name=str(baseline))
        regression.check_this_machine(before, any_machine)
        for job in again.jobs:
            check_job(job)
        passes = BenchPasses(
            again.data,
            benchmark_binary=benchmark_binary_of([again.device], benchmark_binary),
            models=tuple(map(str, sources)),
        )
        plan = BenchPlan(timings, passes)
        devices = run.open_devices([again.device])
        measured = run.measure(again.jobs, plan, devices=devices, progress=progress)
        now = [
            dataclasses.replace(row, headline=then.headline)
            for row, then in zip(measured, before, strict=True)
        ]
    for then, row in zip(before, now, strict=True):
        regression.check_machine(then, row.machine, any_machine)
    verdicts = [regression.judge(*pair, limits) for pair in zip(before, now, strict=True)]
    return verdicts, now


def time_together(
    artifacts: Sequence[str | Path],
    *,
    threads: int = 1,
    rounds: int = 50,
    burst: int = 20,
    warmup: int = 5,
) -> list[tuple[int, ...]]:
    """Times artifacts against each other: in this process, one image, interleaved.

    Ratios of the times can be trusted on a machine that also does other things: every artifact
    runs in every round.

    Args:
        artifacts: ``.tflite`` and ``.onnx`` files, of this package or not.
        threads: threads that each engine may use.
        rounds: rounds, in each of which every artifact runs.
        burst: timed runs of an artifact in a round.
        warmup: untimed runs before those.

    Returns:
        For each artifact the nanoseconds of its ``rounds · burst`` runs, in order.

    Raises:
        InvalidRequest: nothing to time, or a file of another kind.
        InvalidArtifact: a file cannot be run.

    Example:
        >>> ours, stock = cct_export.time_together(["ours.tflite", "stock.tflite"])
        >>> statistics.median(ours) / statistics.median(stock)
    """
    from cct_export.evaluation.latency import time_files
    from cct_export.runtimes import format_of

    paths = [Path(artifact) for artifact in artifacts]
    for path in paths:
        format_of(path)
    if not paths:
        raise InvalidRequest("nothing to time: name artifacts")
    THREADS.check("threads", threads)
    REPEATS.check("rounds", rounds)
    for name, count in (("burst", burst), ("warmup", warmup)):
        RUNS.check(name, count)
    return time_files(paths, threads=threads, rounds=rounds, burst=burst, warmup=warmup)


def _is_record(source: str | Path) -> bool:
    return str(source).endswith(".json")


def _export_request(
    source: Path, format: str, scheme: str, data: str | None, batch: int
) -> ExportRequest | None:
    """Returns the export of a model that is not measured as it is; None for one that is.

    Raises:
        InvalidRequest: there is no such file or model, or it cannot be measured with these options.
    """
    from cct_export.runtimes import is_artifact

    if is_artifact(source) and source.suffix != f".{format}":
        raise InvalidRequest(
            f"{source} is no {format} file: `cct-bench {source.suffix[1:]} {source}` measures it"
        )
    ready = format == "keras" or source.suffix == f".{format}"
    if ready and scheme != "none":
        raise InvalidRequest(f"{source} is measured as it is: a scheme is for models to export")
    if ready:
        check_source(source)
        return None
    if format == "tflite" and batch > 1:
        raise InvalidRequest(
            f"a TFLite file of {source} would take one image at a time, not {batch}: "
            f"`cct-bench onnx {source} --batch {batch}` measures it"
        )
    spec = export_spec(format, scheme, dynamic_batch=format == "onnx")
    request = ExportRequest(spec, default_output(str(source), spec), data)
    check_export(str(source), request)
    return request


def _exported(
    source: str | Path, request: ExportRequest, folder: Path, progress: StatusProgress
) -> Path:
    """Returns the file in ``folder`` that is exported of a model, if its parity passed."""
    request = dataclasses.replace(request, output=folder / request.output)
    (exported,) = export_requests(source, [request], progress)
    if not exported.parity.passed:
        spec, failures = request.spec, "; ".join(exported.parity.failures)
        raise ParityFailed(f"{source} as {spec.format} {spec.scheme} is not measured: {failures}")
    return exported.artifact.path
