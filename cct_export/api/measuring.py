"""Measuring files and models on this machine."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.api.exports import default_output, export_onnx, export_tflite
from cct_export.errors import InvalidRequest, ParityFailed
from cct_export.specs import DEFAULT_MODEL, BenchSpec, ExportSpec

if TYPE_CHECKING:
    from cct_export.results import BenchResult


def bench(
    format: str,
    sources: Sequence[str | Path] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    scheme: str = "none",
    data: str | None = None,
    accuracy: bool = False,
    **timing: Any,
) -> "list[BenchResult]":
    """Measures artifacts on this machine, each in processes of its own.

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
        **timing: ``warmup_s``, ``min_runs`` and ``min_s`` of ``BenchSpec``.

    Returns:
        A result per source, thread count and batch.

    Raises:
        CCTExportError: an artifact cannot be measured.
    """
    from cct_export.devices import local
    from cct_export.runtimes import ENGINES

    if format not in ENGINES:
        raise InvalidRequest(f"no engine for {format!r}: choose from {', '.join(ENGINES)}")
    if isinstance(sources, str | Path):
        sources = [sources]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sources or (DEFAULT_MODEL,):
            path = _ready(Path(source), format, scheme, Path(folder), data, max(batches))
            for count in threads:
                for batch in batches:
                    spec = BenchSpec(ENGINES[format], count, **timing)
                    results.append(local.measure(path, spec, batch, data if accuracy else None))
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
    from cct_export.measurement.latency import time_files

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
