"""Measuring files and models."""

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.api.exports import default_output, export_onnx, export_tflite
from cct_export.errors import CCTExportError, InvalidRequest, ParityFailed
from cct_export.specs import (
    DEFAULT_MODEL,
    PROFILES,
    BenchJob,
    BenchPasses,
    BenchSpec,
    Delegation,
    ExportSpec,
    Timing,
)

if TYPE_CHECKING:
    from cct_export.records import BenchResult, Diagnosis

OPERATOR_RUNS = 50


def _silent(message: str) -> None:
    """Default progress: none."""


def bench(
    format: str,
    sources: Sequence[str | Path] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    scheme: str = "none",
    data: str | None = None,
    accuracy: bool = False,
    delegate: str = "default",
    delegate_options: dict[str, str] | None = None,
    allow_fallback: bool = False,
    operators: bool = False,
    sustained_s: float = 0.0,
    profile: str = "quick",
    devices: Sequence[str] = ("local",),
    benchmark_binary: str | Path | None = None,
    progress: Callable[[str], None] = _silent,
    **timing: Any,
) -> "list[BenchResult]":
    """Measures artifacts of one format, in turn, each in processes of its own.

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
            work at the same time.
        benchmark_binary: the program that measures on ``adb``: LiteRT's ``benchmark_model``, or
            ``onnxruntime_perf_test``.
        progress: called with what is done now.
        **timing: fields of ``specs.Timing`` that differ from the profile's.

    Returns:
        A result per device, source, thread count and batch. One that could not be measured says
        why; one whose golden parity failed has no latency.

    Raises:
        CCTExportError: none of the artifacts can be measured.
    """
    from cct_export.runtimes import ENGINE_NAMES

    if format not in ENGINE_NAMES:
        raise InvalidRequest(f"no engine for {format!r}: choose from {', '.join(ENGINE_NAMES)}")
    if isinstance(sources, str | Path):
        sources = [sources]
    if accuracy and data is None:
        raise InvalidRequest("accuracy is measured on labelled images: name them with data")
    binary = binary_for(devices, benchmark_binary)
    options = tuple((delegate_options or {}).items())
    delegation = Delegation(delegate, options, allow_fallback)
    passes = BenchPasses(
        data if accuracy else None,
        OPERATOR_RUNS if operators else 0,
        sustained_s,
        binary,
    )
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for source in sources or (DEFAULT_MODEL,):
            path = _ready(Path(source), format, scheme, Path(folder), data, max(batches))
            for count in threads:
                for batch in batches:
                    spec = BenchSpec(ENGINE_NAMES[format], count, batch, delegation)
                    jobs.append(BenchJob(path, spec))
        return measured(jobs, timing_of(profile, **timing), passes, progress, devices)


def binary_for(devices: Sequence[str], binary: str | Path | None) -> Path | None:
    """Returns the program that measures on phones, None for none.

    Raises:
        InvalidRequest: there is one, and no phone.
    """
    if binary and not any(name.partition(":")[0] == "adb" for name in devices):
        raise InvalidRequest(
            "a benchmark binary is for the device adb: others measure with their own engines"
        )
    return Path(binary) if binary else None


def timing_of(profile: str, **changes: Any) -> Timing:
    """Returns the timing of a profile with some fields changed; None is no change.

    Raises:
        InvalidRequest: no such profile.
    """
    if profile not in PROFILES:
        raise InvalidRequest(f"no profile {profile!r}: choose from {', '.join(PROFILES)}")
    for name, value in changes.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InvalidRequest(f"{name} is a number from 0 on, not {value}")
    wanted = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(PROFILES[profile], **wanted)


def measured(
    jobs: Sequence[BenchJob],
    timing: Timing,
    passes: BenchPasses,
    progress: Callable[[str], None] = _silent,
    devices: Sequence[str] = ("local",),
) -> "list[BenchResult]":
    """Measures jobs on one or more devices; see ``Device.measure``.

    Raises:
        CCTExportError: none of them can be measured: the reason of the first.
    """
    from cct_export import errors
    from cct_export.bench import run

    results = run.measure(devices, jobs, timing, passes, progress)
    if all(result.failure and not result.timed for result in results):
        kind: type[CCTExportError] = getattr(errors, results[0].failure_kind)
        raise kind(results[0].failure)
    return results


def time_together(
    artifacts: Sequence[str | Path],
    threads: int = 1,
    rounds: int = 50,
    burst: int = 20,
    warmup: int = 5,
) -> list[tuple[int, ...]]:
    """Times artifacts against each other: in this process, one image, round robin.

    Ratios of what comes out can be trusted on a machine that also does other things: every
    artifact has its turn in every round.

    Args:
        artifacts: ``.tflite`` and ``.onnx`` files, of this package or not.
        threads: threads that each engine may use.
        rounds: turns of each artifact.
        burst: timed runs in a turn.
        warmup: untimed runs before those.

    Returns:
        For each artifact the nanoseconds of its ``rounds · burst`` runs, in order.

    Raises:
        InvalidRequest: nothing to time, or a file of another kind.
        InvalidArtifact: a file cannot be run.
    """
    from cct_export.evaluation.latency import time_files

    paths = [Path(artifact) for artifact in artifacts]
    for path in paths:
        if path.suffix not in (".tflite", ".onnx"):
            raise InvalidRequest(f"{path} is neither a .tflite nor an .onnx file")
    if not paths or min(threads, rounds, burst) < 1 or warmup < 0:
        raise InvalidRequest(
            "nothing to time: name artifacts, and one thread, round and run or more"
        )
    return time_files(paths, threads, rounds, burst, warmup)


def _ready(
    source: Path, format: str, scheme: str, folder: Path, data: str | None, batch: int
) -> Path:
    """Returns an artifact of ``format``: ``source`` itself, or what is exported of it."""
    if source.suffix in (".tflite", ".onnx") and source.suffix != f".{format}":
        raise InvalidRequest(f"{source} is no {format} file: use cct-bench {source.suffix[1:]}")
    ready = format == "keras" or source.suffix == f".{format}"
    if ready and scheme != "none":
        raise InvalidRequest(f"{source} is measured as it is: a scheme is for models to export")
    if ready:
        return source
    if format == "tflite" and batch > 1:
        raise InvalidRequest(
            f"a TFLite file of {source} would take one image at a time, not {batch}: "
            f"`cct-bench onnx {source} --batch {batch}` measures it"
        )
    output = folder / f"{default_output(str(source), ExportSpec(format, scheme))}"
    if format == "tflite":
        exported = export_tflite(str(source), output, scheme, data=data)
    else:
        exported = export_onnx(str(source), output, scheme, data=data)
    if not exported.parity.passed:
        failures = "; ".join(exported.parity.failures)
        raise ParityFailed(f"{source} as {format} {scheme} is not measured: {failures}")
    return exported.artifact.path


def doctor(progress: Callable[[str], None] = _silent) -> "list[Diagnosis]":
    """Finds out which engines and delegates work on this machine, by running a small CCT.

    Args:
        progress: called with what is tried now.

    Returns:
        Every engine with every delegate: whether it works, and if not, why.

    Raises:
        OSError: no process can be started.
    """
    from cct_export.bench.doctor import examine
    from cct_export.bench.hosts.channel import start_worker

    return examine(start_worker, progress)
