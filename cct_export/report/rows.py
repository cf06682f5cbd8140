"""Results side by side: the rows and columns of the HTML page, the Markdown table and the CSV."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cct_export.bench import statistics
from cct_export.bench.statistics import Interval
from cct_export.records import BenchResult
from cct_export.report import table_files
from cct_export.report.columns import NONE, Column, milliseconds, percentage
from cct_export.text import plural

REFUSED = "refused: parity failed"


@dataclass(frozen=True)
class Row:
    """A result as tables show it; the names of the fields are the header of the CSV.

    Attributes:
        number: position among the results, from 1.
        artifact: name of the file or model, with its folder where two files have the same name.
        path: of the file, as the user wrote it.
        engine: name and version.
        delegate: what computed.
        scheme: quantization scheme.
        device: where it ran.
        kilobytes: size of the file (1000 bytes), None for a model that is no single file.
        threads: of the engine.
        batch: images per run.
        headline: the percentile that stands for the latency.
        latency_ms: that percentile; None where there is none or it was refused.
        refused: why there is no latency; empty if there is.
        ratio: latency over that of the first result; None for the first, and where the two did
            different work.
        throughput: images per second, of the median.
        peak_megabytes: peak resident memory (10⁶ bytes).
        load_ms: time to open the session.
        delegated: nodes that the delegate ran, None if not known.
        nodes: number of nodes, None if not known.
        top1: accuracy, 0 to 1, with its Wilson interval; None if not measured.
        parity: ``passed``, ``FAILED`` or ``unknown``.
        sqnr_db: SQNR of the logits, None if not known.
    """

    number: int
    artifact: str
    path: str
    engine: str
    delegate: str
    scheme: str
    device: str
    kilobytes: float | None
    threads: int
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
    """Returns a row per result; ratios are to the first."""
    names = file_names([result.artifact.path for result in results])
    reference = results[0] if results else None
    return [
        _row(number, names[result.artifact.path], result, None if number == 1 else reference)
        for number, result in enumerate(results, start=1)
    ]


def _row(number: int, name: str, result: BenchResult, reference: BenchResult | None) -> Row:
    runtime, accuracy, refused = result.runtime, result.accuracy, refusal(result)
    return Row(
        number=number,
        artifact=name,
        path=result.artifact.path,
        engine=f"{runtime.name} {runtime.version}".strip(),
        delegate=runtime.delegate or runtime.accelerator,
        scheme=result.artifact.scheme,
        device=result.device,
        kilobytes=scaled(result.artifact.size_bytes, 1e3),
        threads=runtime.threads,
        batch=result.batch,
        headline=result.headline,
        latency_ms=None if refused else statistics.headline_ms(result),
        refused=refused,
        ratio=None if reference is None else ratio(result, reference),
        throughput=None if refused else throughput(result),
        peak_megabytes=scaled(result.peak_rss_bytes, 1e6),
        load_ms=result.load_ms,
        delegated=runtime.delegated_nodes,
        nodes=runtime.total_nodes,
        top1=None if accuracy is None else Interval(accuracy.top1, *accuracy.top1_interval),
        parity=parity_status(result),
        sqnr_db=None if result.parity is None else result.parity.sqnr_db,
    )


def file_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns by path the last part of it, or all of it where two paths end alike."""
    names = {path: path.rstrip("/").rpartition("/")[2] or path for path in paths}
    counts = Counter(names.values())
    return {path: name if counts[name] == 1 else path for path, name in names.items()}


def refusal(result: BenchResult) -> str:
    """Returns why the latency of ``result`` does not count; empty if it does.

    The speed of a file that computes something else than its model is not worth comparing.
    """
    if result.failure and not result.timed:
        return f"failed: {result.failure}"
    if result.parity is not None and not result.parity.passed:
        return REFUSED
    return "" if result.timed else "not timed"


def parity_status(result: BenchResult) -> str:
    """Returns ``passed``, ``FAILED`` or ``unknown``; a dash for a Keras model, the reference."""
    if result.parity is None:
        return NONE if result.runtime.name.startswith("keras") else "unknown"
    return "passed" if result.parity.passed else "FAILED"


def ratio(result: BenchResult, reference: BenchResult) -> Interval | None:
    """Returns latency over that of ``reference``; None if either is refused, or work differs."""
    if refusal(result) or refusal(reference):
        return None
    if (result.batch, result.headline) != (reference.batch, reference.headline):
        return None
    if not (result.times_ns and reference.times_ns):
        return None  # Statistics alone give no interval.
    return statistics.ratio(result, reference)


def throughput(result: BenchResult) -> float | None:
    """Returns images per second, of the median; None where there is no latency."""
    summary = statistics.summary_of(result)
    return None if summary is None else result.batch / summary.p50 * 1e3


def scaled(number: float | None, unit: float) -> float | None:
    """Returns ``number`` in a larger ``unit``, None for None."""
    return None if number is None else number / unit


# What distinguishes results of one file, in the order in which a label names it.
_DISTINCTIONS: tuple[Callable[[Row], str], ...] = (
    lambda row: row.engine,
    lambda row: row.delegate,
    lambda row: plural(row.threads, "thread"),
    lambda row: f"batch {row.batch}",
    lambda row: row.device,
)


def labels(rows: Sequence[Row]) -> list[str]:
    """Returns a unique name for each row: the artifact, and what distinguishes it from others."""
    names = [row.artifact for row in rows]
    for distinction in _DISTINCTIONS:
        if len(set(names)) == len(names):
            break
        words = [distinction(row) for row in rows]
        # A word that all rows of a name share does not distinguish them.
        words_of_name = Counter(name for name, _ in set(zip(names, words, strict=True)))
        names = [
            f"{name}, {word}" if words_of_name[name] > 1 and word else name
            for name, word in zip(names, words, strict=True)
        ]
    counts = Counter(names)
    return [
        f"{name} (no. {row.number})" if counts[name] > 1 else name
        for name, row in zip(names, rows, strict=True)
    ]


def columns(rows: Sequence[Row]) -> list[Column[Row]]:
    """Returns the columns of a table of ``rows``."""
    headlines = {row.headline for row in rows}
    same = len(headlines) == 1
    devices: list[Column[Row]] = []
    if len({row.device for row in rows}) > 1:
        devices = [Column("device", lambda row: row.device)]
    # What one compares comes first: a phone shows no more without scrolling.
    return [
        Column("artifact", lambda row: row.artifact),
        Column("scheme", lambda row: row.scheme),
        Column(
            f"p{headlines.pop()} ms" if same else "latency ms",
            lambda row: _latency(row, "" if same else f"p{row.headline} "),
            lambda row: row.latency_ms,
        ),
        Column("× first", _ratio, lambda row: row.ratio and row.ratio.value),
        Column("top-1", lambda row: percentage(row.top1), lambda row: row.top1 and row.top1.value),
        Column("parity", lambda row: row.parity),
        Column.number("kB", lambda row: row.kilobytes, ",.0f"),
        Column.number("images/s", lambda row: row.throughput, ",.0f"),
        Column.number("peak MB", lambda row: row.peak_megabytes, ",.0f"),
        Column.number("load ms", lambda row: row.load_ms, ",.1f"),
        Column.number("threads", lambda row: row.threads, "d"),
        Column.number("batch", lambda row: row.batch, "d"),
        Column("delegated", _delegated, lambda row: row.delegated),
        Column("engine", lambda row: ", ".join(filter(None, (row.engine, row.delegate)))),
        *devices,
    ]


def _latency(row: Row, prefix: str) -> str:
    return row.refused if row.latency_ms is None else prefix + milliseconds(row.latency_ms)


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "reference" if row.number == 1 and not row.refused else NONE
    return f"{row.ratio.value:.2f} ({row.ratio.low:.2f}–{row.ratio.high:.2f})"


def _delegated(row: Row) -> str:
    if row.delegated is None or row.nodes is None:
        return NONE
    return f"{row.delegated}/{row.nodes}"


def markdown(results: Sequence[BenchResult]) -> str:
    """Returns a GitHub Markdown table of ``results``, with the columns of the HTML page."""
    table = rows(results)
    return table_files.markdown(columns(table), table)


def csv(results: Sequence[BenchResult]) -> str:
    """Returns ``results`` as comma-separated values, see ``table_files.csv``."""
    return table_files.csv(Row, rows(results))
