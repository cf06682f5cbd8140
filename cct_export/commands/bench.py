"""``cct-bench tflite``, ``onnx`` and ``keras``, and the options of all commands that measure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cct_export import errors
from cct_export.commands import options
from cct_export.commands.options import DATASETS, ExitCode, Outcome
from cct_export.commands.types import CountList, Duration, Setting
from cct_export.specs import PROFILES

if TYPE_CHECKING:
    from cct_export.records import BenchResult

timing = options.combined(
    click.option("--min-runs", type=click.IntRange(1), help="Minimum number of timed runs."),
    click.option(
        "--min-seconds", "min_s", type=click.FloatRange(0), help="Minimum seconds of timed runs."
    ),
    click.option(
        "--warmup-seconds",
        "warmup_s",
        type=click.FloatRange(0),
        help="Seconds of warm-up before each repeat.",
    ),
    click.option(
        "--repeats", type=click.IntRange(1), help="Repeats of the measurement in new processes."
    ),
)
profile = click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="quick",
    help="quick: p50 of at least 50 runs and 1 s; strict: p90 of at least 1,024 runs and 60 s, in "
    "five repeats that must agree within 5 %.",
)
accuracy = click.option("--accuracy", is_flag=True, help="Measure accuracy too, on --data.")
labelled_data = click.option("--data", help=f"Labelled images: {DATASETS}.")
benchmark_binary = click.option(
    "--benchmark-binary",
    metavar="PATH",
    help="Program that measures on adb: LiteRT's benchmark_model, or onnxruntime_perf_test.",
)
operators = click.option("--profile-ops", "operators", is_flag=True, help="Time each operator too.")

_measured = options.combined(
    click.argument("sources", metavar="[ARTIFACT|MODEL]...", nargs=-1),
    click.option(
        "--threads", "--num-threads", type=CountList(), default="1", help="Threads of the engine."
    ),
    click.option("--batch", "batches", type=CountList(), default="1", help="Images per run."),
    options.scheme,
    click.option(
        "--delegate",
        metavar="NAME",
        default="default",
        help="Delegate or execution provider; `cct-export doctor` lists those that work here.",
    ),
    click.option(
        "--delegate-option",
        "delegate_options",
        type=Setting(),
        multiple=True,
        help="Option of the delegate; may be repeated.",
    ),
    click.option(
        "--allow-fallback",
        is_flag=True,
        help="Measure even if the delegate does not take every operator; the report says so.",
    ),
    click.option(
        "--device",
        "devices",
        metavar="NAME",
        multiple=True,
        default=("local",),
        help="Where to measure: local, ssh:USER@HOST[:PORT] or adb[:SERIAL]; several measure at "
        "the same time.",
    ),
    benchmark_binary,
    profile,
    timing,
    click.option(
        "--sustained",
        "sustained_s",
        type=Duration(),
        default=0.0,
        help="Then run without a pause for so long, such as 10m, and report latency over time.",
    ),
    operators,
    click.option(
        "--plot",
        type=click.Path(path_type=Path),
        help="Plot the operators of the first artifact as a .png file; with --profile-ops.",
    ),
    accuracy,
    labelled_data,
    options.common,
)


@click.command()
@_measured
def tflite(**arguments: Any) -> Outcome:
    """Measure latency, memory and, with --accuracy, accuracy of TFLite files.

    A MODEL is exported first; by default the shipped CIFAR-10 model.
    """
    return _measure("tflite", **arguments)


@click.command()
@_measured
def onnx(**arguments: Any) -> Outcome:
    """Measure latency, memory and, with --accuracy, accuracy of ONNX files.

    A MODEL is exported first; by default the shipped CIFAR-10 model.
    """
    return _measure("onnx", **arguments)


@click.command()
@_measured
def keras(**arguments: Any) -> Outcome:
    """Measure latency, memory and, with --accuracy, accuracy of Keras models.

    By default the shipped CIFAR-10 model. KERAS_BACKEND chooses the backend.
    """
    return _measure("keras", **arguments)


def _measure(
    format: str,
    *,
    sources: Sequence[str],
    plot: Path | None,
    delegate_options: Sequence[tuple[str, str]],
    **arguments: Any,
) -> Outcome:
    """Measures artifacts of one format; the arguments are those of ``api.benchmark``."""
    check_labelled(arguments["accuracy"], arguments["data"])
    if plot is not None:
        if not arguments["operators"]:
            raise click.UsageError("--plot needs --profile-ops: it plots the operators")
        options.check_plot(plot)
    settings = dict(delegate_options)
    if len(settings) < len(delegate_options):
        raise click.UsageError("an option of the delegate is given twice")
    files = bool(sources) and all(source.endswith(f".{format}") for source in sources)
    if format != "keras" and not files:
        options.start_keras("tensorflow")
    from cct_export import api
    from cct_export.bench import record
    from cct_export.report import bench
    from cct_export.report.terminal import status

    with status() as progress:
        results = api.benchmark(
            format, sources=sources, delegate_options=settings, progress=progress, **arguments
        )
    bench.show(results)
    if plot is not None and results[0].operators is not None:
        bench.plot_operators(results[0].operators, plot, results[0].artifact.path)
    return Outcome(record.to_dict(results), exit_code(results, arguments["profile"]))


def check_labelled(accuracy: bool, data: str | None) -> None:
    """Refuses ``--accuracy`` without ``--data``."""
    if accuracy and data is None:
        raise click.UsageError("--accuracy needs --data: the labelled images to measure on")


def exit_code(results: "Sequence[BenchResult]", profile: str) -> int:
    """Returns the exit code of a measurement: that of the first failure.

    Without one, a strict measurement is inconclusive if its repeats do not agree.
    """
    from cct_export.bench.statistics import spread

    for result in results:
        if result.failure:
            return int(getattr(errors, result.failure_kind).exit_code)
        if result.parity is not None and not result.parity.passed:
            return ExitCode.PARITY_FAILED
    limit = PROFILES[profile].agreement
    if profile == "strict" and any(row.times_ns and spread(row) > limit for row in results):
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASSED
