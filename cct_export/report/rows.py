"""Results side by side: what the page, the Markdown table and the CSV say of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cct_export.bench import statistics
from cct_export.bench.statistics import Interval
from cct_export.records import BenchResult

REFUSED = "refused: parity failed"
# What tells results of one file apart, in the order in which a label says it.
_DISTINCTIONS: tuple[Callable[["Row"], str], ...] = (
    lambda row: row.engine,
    lambda row: row.delegate,
    lambda row: "" if row.threads is None else _counted(row.threads, "thread"),
    lambda row: f"batch {row.batch}",
    lambda row: row.device,
)


@dataclass(frozen=True)
class Row:
    """What one result comes to.

    Attributes:
        number: position among the results, from 1 on.
        artifact: name of the file or model, with its folder where two files have the same name.
        path: of the file as it was asked for.
        engine: name and version.
        delegate: what computed.
        scheme: of quantization.
        device: where it ran.
        kilobytes: of the file (1000 bytes), None for what is no file.
        threads: of the engine, None if not known.
        batch: images per run.
        headline: the percentile that stands for the latency.
        latency_ms: that percentile; None without one, and where it was refused.
        refused: why there is no latency; empty if there is.
        ratio: latency over that of the first result; None for that one, and where the two are not
            to be compared.
        throughput: images per second, by the median.
        peak_megabytes: largest resident memory (10⁶ bytes).
        load_ms: making the session.
        delegated: nodes that the delegate took, None if not known.
        nodes: all of them, None if not known.
        top1: share of images, with its Wilson interval; None if not measured.
        parity: ``passed``, ``FAILED`` or ``unknown``.
        sqnr_db: of the logits against Keras, None if not known.
    """

    number: int
    artifact: str
    path: str
    engine: str
    delegate: str
    scheme: str
    device: str
    kilobytes: float | None
    threads: int | None
    batch: int
    headline: int
    latency_ms: float | None
    refused: str
    ratio: Interval | None
    throughput: float | None
    peak_megabytes: float | None
    load_ms: float | None
    delegated: int | None
    nodes: int | None
    top1: Interval | None
    parity: str
    sqnr_db: float | None


def rows(results: Sequence[BenchResult]) -> list[Row]:
    """Returns a row per result, the first of which is the reference of the ratios."""
    names = _names([str(result.artifact.path) for result in results])
    reference = results[0] if results else None
    return [
        _row(number, name, result, None if result is reference else reference)
        for number, (name, result) in enumerate(zip(names, results, strict=True), start=1)
    ]


def labels(found: Sequence[Row]) -> list[str]:
    """Returns a name for each row that no other has: artifact, and what else tells it apart."""
    texts = [row.artifact for row in found]
    for distinction in _DISTINCTIONS:
        counts = Counter(texts)
        if len(counts) == len(texts):
            break
        said = [distinction(row) for row in found]
        # What is the same for all that share a name tells none of them apart.
        kinds = Counter(text for text, _ in set(zip(texts, said, strict=True)))
        texts = [f"{t}, {s}" if kinds[t] > 1 and s else t for t, s in zip(texts, said, strict=True)]
    counts = Counter(texts)
    return [
        f"{text} (no. {row.number})" if counts[text] > 1 else text
        for text, row in zip(texts, found, strict=True)
    ]


def refusal(result: BenchResult) -> str:
    """Returns why the latency of ``result`` does not count; empty if it does.

    A file that does not compute what its model computes has no speed worth comparing.
    """
    if result.failure and not result.timed:
        return f"failed: {result.failure}"
    if result.parity is not None and not result.parity.passed:
        return REFUSED
    return "" if result.timed else "not timed"


def _row(number: int, name: str, result: BenchResult, reference: BenchResult | None) -> Row:
    runtime, artifact = result.runtime, result.artifact
    refused = refusal(result)
    counted = not refused
    peak, accuracy, parity = result.peak_rss_bytes, result.accuracy, result.parity
    return Row(
        number=number,
        artifact=name,
        path=str(artifact.path),
        engine=f"{runtime.name} {runtime.version}".strip(),
        delegate=str(runtime.delegate or runtime.accelerator or ""),
        scheme=str(artifact.scheme),
        device=result.device,
        kilobytes=_scaled(artifact.size_bytes, 1e3),
        threads=runtime.threads,
        batch=result.batch,
        headline=result.headline,
        latency_ms=statistics.headline_ms(result) if counted else None,
        refused=refused,
        ratio=ratio(result, reference),
        throughput=_throughput(result) if counted else None,
        peak_megabytes=_scaled(peak, 1e6),
        load_ms=result.load_ms,
        delegated=runtime.delegated_nodes,
        nodes=runtime.total_nodes,
        top1=None if accuracy is None else Interval(accuracy.top1, *accuracy.top1_interval),
        parity="unknown" if parity is None else "passed" if parity.passed else "FAILED",
        sqnr_db=None if parity is None else parity.sqnr_db,
    )


def _scaled(value: Any, unit: float) -> float | None:
    return None if value is None else value / unit


def ratio(result: BenchResult, reference: BenchResult | None) -> Interval | None:
    """Returns how many times as long ``result`` takes, if both do the same work."""
    if reference is None or refusal(result) or refusal(reference):
        return None
    if (result.batch, result.headline) != (reference.batch, reference.headline):
        return None
    if not (result.times_ns and reference.times_ns):
        return None  # from statistics alone follow no bounds
    return statistics.ratio(result, reference)


def _throughput(result: BenchResult) -> float | None:
    summary = statistics.summary_of(result)
    return None if summary is None else result.batch / summary.p50 * 1e3


def _names(paths: Sequence[str]) -> list[str]:
    """Returns the last part of each path, or all of it where two paths end alike."""
    ends = {path: path.rstrip("/").rpartition("/")[2] or path for path in paths}
    counts = Counter(ends.values())
    return [ends[path] if counts[ends[path]] == 1 else path for path in paths]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
