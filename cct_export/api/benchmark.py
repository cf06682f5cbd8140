"""Latency, memory and accuracy of files and models, side by side and against a baseline."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.api.export import default_output, export_requests
from cct_export.api.request import (
    benchmark_binary_of,
    check_export,
    check_has_model,
    check_options,
    check_source,
    engine_for,
    export_spec,
    is_record,
    labelled,
    timing_of,
)
from cct_export.errors import InvalidRequest, ParityFailed
from cct_export.names import choose
from cct_export.specs import (
    DEFAULT_MODEL,
    IMAGES_PER_RUN,
    NO_OPTIONS,
    REPEATS,
    RUNS,
    THREADS,
    BenchJob,
    BenchPasses,
    BenchPlan,
    BenchSpec,
    Delegation,
    ExportRequest,
    ModelOptions,
)
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.bench.hosts import Device
    from cct_export.records import BenchResult

OPERATOR_RUNS = 50


def benchmark(
    format: str,
    *,
    sources: str | Path | Sequence[str | Path] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    scheme: str = "none",
    engines: Sequence[str] = (),
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
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
    **timing: Any,
) -> "list[BenchResult]":
    """Measures artifacts of one format, interleaved, each in processes of its own.

    Args:
        format: ``tflite``, ``onnx``, ``ncnn`` or ``keras``.
        sources: artifacts of the format, or models, which are exported first; the shipped model
            if there is none.
        threads: thread counts to measure with.
        batches: images per run to measure with.
        scheme: quantization scheme of models that are exported first.
        engines: what runs each file: ``litert`` or ``openvino`` of TFLite, ``onnxruntime`` or
            ``openvino`` of ONNX; the first of them if none is named. Keras has only its own.
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
        options: how to load models, see ``load``.
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
    from cct_export.runtimes import TIMED_ENGINES

    format = choose(format, TIMED_ENGINES, what="format")
    known = TIMED_ENGINES[format]
    engines = [choose(name, known, what=f"engine of {format}") for name in engines or known[:1]]
    check_options(options)
    if not threads or not batches:
        raise InvalidRequest("name one number of threads and of images per run at least")
    if isinstance(devices, str):
        devices = [devices]
    names = [sources] if isinstance(sources, str | Path) else sources or (DEFAULT_MODEL,)
    check_has_model(names, options)
    passes = BenchPasses(
        labelled(accuracy, data),
        OPERATOR_RUNS if operators else 0,
        sustained_s,
        benchmark_binary_of(devices, benchmark_binary),
        tuple(map(str, names)),
    )
    plan = BenchPlan(timing_of(profile, **timing), passes)
    opened = run.open_devices(devices)
    _check_engines(engines, operators, delegate_options)
    settings = tuple((delegate_options or {}).items())
    delegations = {
        engine: Delegation(_delegate_of(opened, engine, delegate), settings, allow_fallback)
        for engine in engines
    }
    specs = [
        BenchSpec(engine, count, batch, delegation, options)
        for engine, delegation in delegations.items()
        for count in threads
        for batch in batches
    ]
    for device in opened:
        device.check(specs, plan)
    exports = [
        _export_request(
            Path(name), format, scheme, data, batch=max(batches), pure="openvino" in engines
        )
        for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            Path(name)
            if request is None
            else _exported(name, request, options, Path(folder), progress)
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
    options: ModelOptions = NO_OPTIONS,
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
        options: how to load models, see ``load``.
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
    check_options(options)
    if not sources:
        raise InvalidRequest("nothing to compare: name artifacts, models or saved results")
    passes = BenchPasses(
        labelled(accuracy, data),
        OPERATOR_RUNS if operators else 0,
        benchmark_binary=benchmark_binary_of([device], benchmark_binary),
        models=tuple(map(str, sources)),
    )
    plan = BenchPlan(timing_of(profile, **timing), passes)
    check_has_model(sources, options)
    for source in sources:
        check_source(Path(source))
    (opened,) = run.open_devices([device])
    settings = tuple((delegate_options or {}).items())

    def job(source: Path) -> BenchJob:
        engine = engine_for(source)
        name = opened.choose_delegate(engine, delegate)
        delegation = Delegation(name, settings, allow_fallback)
        return BenchJob(source, BenchSpec(engine, threads, batch, delegation, options))

    rows = [
        record.read_for_comparison(Path(source)) if is_record(source) else job(Path(source))
        for source in sources
    ]
    jobs = [row for row in rows if isinstance(row, BenchJob)]
    opened.check([job.spec for job in jobs], plan)
    measured = iter(run.measure(jobs, plan, devices=[opened], progress=progress) if jobs else ())
    results: list[BenchResult] = []
    for row in rows:
        results += [next(measured)] if isinstance(row, BenchJob) else row
    return results


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


def _check_engines(
    engines: Sequence[str], operators: bool, options: Mapping[str, str] | None
) -> None:
    """Refuses what an engine cannot tell, and options that are of one engine only."""
    from cct_export.runtimes import PROFILERS

    for engine in engines:
        if operators and engine not in PROFILERS:
            raise InvalidRequest(f"{engine} tells no times of operators: leave --profile-ops out")
    if options and len(engines) > 1:
        raise InvalidRequest(
            f"{', '.join(options)}: options are of one engine: measure each by itself with --json, "
            "and put the records side by side with cct-bench compare"
        )


def _delegate_of(devices: "Sequence[Device]", engine: str, name: str) -> str:
    """Returns a delegate as the engine names it; refuses one that a device does not have."""
    for device in devices:
        name = device.choose_delegate(engine, name)
    return name


def _export_request(
    source: Path, format: str, scheme: str, data: str | None, *, batch: int, pure: bool
) -> ExportRequest | None:
    """Returns the export of a model that is not measured as it is; None for one that is.

    Args:
        source: file or model.
        format: to measure.
        scheme: of models.
        data: for calibration and parity; None for what the model has.
        batch: the most images per run.
        pure: whether the file is for other engines than ONNX Runtime too.

    Raises:
        InvalidRequest: there is no such file or model, or it cannot be measured with these options.
    """
    from cct_export.runtimes import format_of, is_artifact

    own = format_of(source) if is_artifact(source) else ""
    if own not in ("", format):
        raise InvalidRequest(
            f"{source} is no {format} file: `cct-bench {own} {source}` measures it"
        )
    ready = format in ("keras", own)
    if ready and scheme != "none":
        raise InvalidRequest(f"{source} is measured as it is: a scheme is for models to export")
    if ready:
        check_source(source)
        return None
    if format != "onnx" and batch > 1:
        name = {"tflite": "a TFLite", "ncnn": "an ncnn"}[format]
        raise InvalidRequest(
            f"{name} file of {source} would take one image at a time, not {batch}: "
            f"`cct-bench onnx {source} --batch {batch}` measures it"
        )
    is_onnx = format == "onnx"
    spec = export_spec(format, scheme, dynamic_batch=is_onnx, pure_onnx=is_onnx and pure)
    request = ExportRequest(spec, default_output(str(source), spec), data)
    check_export(str(source), request)
    return request


def _exported(
    source: str | Path,
    request: ExportRequest,
    options: ModelOptions,
    folder: Path,
    progress: StatusProgress,
) -> Path:
    """Returns the file in ``folder`` that is exported of a model, if its parity passed."""
    request = dataclasses.replace(request, output=folder / request.output)
    (exported,) = export_requests(source, [request], progress, options)
    if not exported.parity.passed:
        spec, failures = request.spec, "; ".join(exported.parity.failures)
        raise ParityFailed(f"{source} as {spec.format} {spec.scheme} is not measured: {failures}")
    return exported.artifact.path
