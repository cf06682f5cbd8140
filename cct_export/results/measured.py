"""What one artifact did on one engine."""

from dataclasses import dataclass, field
from typing import Any

from cct_export.results.parity import ParityReport


@dataclass(frozen=True)
class Accuracy:
    """Share of test images whose label is the best, or among the five best, 0 to 1."""

    top1: float
    top5: float
    samples: int
    data: str


@dataclass(frozen=True)
class BenchResult:
    """What one artifact did on one engine.

    Attributes:
        artifact: path, format, scheme, size and checksum of the file.
        runtime: engine, version, accelerator, threads, delegated and total nodes.
        batch: images per run.
        times_ns: every timed run, in nanoseconds, in order.
        load_ms: making the session.
        first_inference_ms: the first run after that.
        peak_rss_bytes: largest resident memory of a process that did nothing else, None where
            the OS does not tell.
        accuracy: on labelled images, if asked for.
        parity: against the golden logits in the sidecar, if there is one.
        device: where it ran.
        warnings: what to know before believing the figures.
    """

    artifact: dict[str, Any]
    runtime: dict[str, Any]
    batch: int
    times_ns: tuple[int, ...]
    load_ms: float
    first_inference_ms: float
    peak_rss_bytes: int | None
    accuracy: Accuracy | None = None
    parity: ParityReport | None = None
    device: str = "local"
    warnings: tuple[str, ...] = field(default=())
