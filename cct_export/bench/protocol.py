"""What a worker (``bench.worker``) is asked and answers, on this machine or behind ssh."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import psutil
from msgspec import Meta

from cct_export import workers
from cct_export.records import Accuracy, Contract, Runtime
from cct_export.records.bench import Nanoseconds
from cct_export.records.machine import Count, Figure, Milliseconds
from cct_export.workers import Channel

WORKER = "cct_export.bench.worker:Worker"
# A delegate may compile the file for minutes, and an accuracy takes as long as its images.
ANSWER_LIMIT_S = 3600.0
# Of the machine's memory: a large batch needs much, and what is left keeps the machine alive.
MEMORY_SHARE = 0.75


@dataclass(frozen=True)
class Opened:
    """An artifact on an engine, after its first run.

    Attributes:
        runtime: the engine.
        contract: what the file says about itself.
        load_ms: time to open the session; None if not known.
        first_inference_ms: time of the first run; None if not known.
        image_shape: height, width, channels.
    """

    runtime: Runtime
    contract: Contract = field(default_factory=Contract)
    load_ms: Figure | None = None
    first_inference_ms: Figure | None = None
    image_shape: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Burst:
    """Timed runs without a pause.

    Attributes:
        times_ns: nanoseconds of each run, in order.
        other_cores: how many cores other programs kept busy, over all bursts of the worker; None
            if not known.
        yardstick_ms: how long a fixed piece of work took; None if not measured.
    """

    times_ns: Annotated[tuple[Nanoseconds, ...], Meta(min_length=1)]
    other_cores: Figure | None = None
    yardstick_ms: Milliseconds | None = None


@dataclass(frozen=True)
class Processing:
    """Median times of the work around a run; None if not measured.

    Attributes:
        preprocess_ms: from uint8 pixels of the right size to the engine's input.
        postprocess_ms: from its output to five classes with probabilities.
    """

    preprocess_ms: Figure | None = None
    postprocess_ms: Figure | None = None


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of a process that only ran the artifact; None where the OS does not tell."""

    peak_rss_bytes: Count | None


@dataclass(frozen=True)
class Scored:
    """Accuracy on labelled images, and which of them were classified correctly."""

    accuracy: Accuracy
    right: tuple[bool, ...]


# Starts a worker; the argument is the subject of its errors.
StartWorker = Callable[[str], Channel]


def start_worker(subject: str) -> Channel:
    """Starts a worker on this machine, in a fresh Python; its errors are about ``subject``."""
    memory_bytes = int(MEMORY_SHARE * psutil.virtual_memory().total)
    return workers.start(WORKER, subject, limit_s=ANSWER_LIMIT_S, memory_bytes=memory_bytes)
