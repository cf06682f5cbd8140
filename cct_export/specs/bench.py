"""What is measured, on which engine and for how long."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cct_export.bounds import Checked, Range
from cct_export.specs.loading import NO_OPTIONS, ModelOptions

# What can be measured: far more than anyone needs, and no more than fits into memory.
THREADS = Range(1, 1024, whole=True)
IMAGES_PER_RUN = Range(1, 65536, whole=True)
RUNS = Range(0, 10**7, whole=True)
REPEATS = Range(1, 1000, whole=True)
TIMED_S = Range(0, 3600)
WARMUP_S = Range(0, 1800)
SUSTAINED_S = Range(0, 86400)
# Of a latency, relative.
GROWTH = Range(0, 100)


@dataclass(frozen=True)
class Timing(Checked):
    """How often and how long an artifact is run.

    Attributes:
        warmup_s: seconds of untimed runs before the first timed one, in every repeat.
        min_runs: timed runs at least, over all repeats.
        min_s: seconds of timed runs at least, over all repeats.
        repeats: times that everything is done again, in fresh processes.
        agreement: relative spread of the repeats' headlines up to which they agree.
        headline: the percentile that stands for the latency.
    """

    warmup_s: Annotated[float, WARMUP_S] = 0.5
    min_runs: Annotated[int, RUNS] = 50
    min_s: Annotated[float, TIMED_S] = 1.0
    repeats: Annotated[int, REPEATS] = 1
    agreement: Annotated[float, Range(0, 1)] = 0.05
    headline: Annotated[int, Range(1, 99, whole=True)] = 50


# quick follows TensorFlow Lite's benchmark_model, strict the single stream of MLPerf Mobile.
PROFILES = {
    "quick": Timing(),
    "strict": Timing(min_runs=1024, min_s=60.0, repeats=5, headline=90),
}


@dataclass(frozen=True)
class Delegation:
    """The delegate that an engine hands its work to.

    Attributes:
        name: an entry of the engine's table, or the entry's word, a colon and a path; ``default``
            for what the engine takes by itself.
        options: of the delegate, as the engine takes them: names and values.
        allow_fallback: whether operators that the delegate does not take may run elsewhere.
    """

    name: str = "default"
    options: tuple[tuple[str, str], ...] = ()
    allow_fallback: bool = False


DEFAULT_DELEGATION = Delegation()


@dataclass(frozen=True)
class BenchSpec(Checked):
    """The engine that an artifact is measured on.

    Attributes:
        runtime: ``litert``, ``onnxruntime``, ``openvino`` or ``keras``.
        threads: threads the engine may use.
        batch: images per run.
        delegation: what the engine hands its work to.
        options: how to load a MODEL; of no use to exported files.
    """

    runtime: str
    threads: Annotated[int, THREADS] = 1
    batch: Annotated[int, IMAGES_PER_RUN] = 1
    delegation: Delegation = DEFAULT_DELEGATION
    options: ModelOptions = NO_OPTIONS


@dataclass(frozen=True)
class BenchJob:
    """One artifact on one engine.

    Attributes:
        path: an artifact, or a MODEL for the engine ``keras``.
        spec: engine, threads, batch and delegate.
    """

    path: Path
    spec: BenchSpec


@dataclass(frozen=True)
class BenchPasses(Checked):
    """What is measured besides latency and memory, each in a pass of its own.

    Attributes:
        accuracy_data: labelled images, as ``--data`` names them; None for no accuracy.
        operators: runs that the time of each operator is the median of, 0 for none.
        sustained_s: seconds of uninterrupted runs, 0 for none.
        benchmark_binary: program that measures on a phone, None for none.
        models: MODELs that the user names. An accuracy is compared with that of the model that a
            file was made of; only if it is one of these, it is downloaded for that.
    """

    accuracy_data: str | None = None
    operators: Annotated[int, RUNS] = 0
    sustained_s: Annotated[float, SUSTAINED_S] = 0.0
    benchmark_binary: Path | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchPlan:
    """How artifacts are measured.

    Attributes:
        timing: how often and how long they are run.
        passes: what is measured besides latency and memory.
    """

    timing: Timing = Timing()
    passes: BenchPasses = BenchPasses()
