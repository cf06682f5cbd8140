"""The commands of ``cct-bench``: measuring, comparing, checking against a baseline."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cct_export import errors
from cct_export.bounds import exceeds
from cct_export.commands import options
from cct_export.commands.micro import prove_on_tflm
from cct_export.commands.options import DATASETS, ExitCode, Outcome
from cct_export.commands.outputs import OutputFile, TableFiles, result_files
from cct_export.commands.types import (
    CountList,
    Delegate,
    Duration,
    Model,
    NameList,
    Number,
    OneOf,
    Output,
    PathOr,
    Percentage,
    Setting,
)
from cct_export.errors import InvalidRequest
from cct_export.names import choose
from cct_export.specs import (
    IMAGES_PER_RUN,
    POINTS,
    PROFILES,
    REPEATS,
    RUNS,
    SUFFIXES,
    THREADS,
    TIMED_S,
    WARMUP_S,
)

if TYPE_CHECKING:
    from cct_export.records import BenchResult

DEVICE = OneOf(("local", "ssh:", "adb"), "NAME")
TFLITE_ENGINES = ("litert", "openvino", "tflm")
# By status of a verdict; the first that occurs is the exit code.
EXIT_CODES = {
    "parity": ExitCode.PARITY_FAILED,
    "accuracy": ExitCode.ACCURACY_LOST,
    "regression": ExitCode.REGRESSION,
    "inconclusive": ExitCode.INCONCLUSIVE,
}

timing = options.combined(
    click.option(
        "--min-runs", type=Number(replace(RUNS, minimum=1)), help="Minimum number of timed runs."
    ),
    click.option(
        "--min-seconds", "min_s", type=Number(TIMED_S), help="Minimum seconds of timed runs."
    ),
    click.option(
        "--warmup-seconds",
        "warmup_s",
        type=Number(WARMUP_S),
        help="Seconds of warm-up before each repeat.",
    ),
    click.option(
        "--repeats", type=Number(REPEATS), help="Repeats of the measurement in new processes."
    ),
)
profile = click.option(
    "--profile",
    type=OneOf(PROFILES),
    default="quick",
    help="quick: p50 of at least 50 runs and 1 s; strict: p90 of at least 1,024 runs and 60 s, in "
    "five repeats that must agree within 5 %.",
)
accuracy = click.option("--accuracy", is_flag=True, help="Measure accuracy too, on --data.")
labelled_data = click.option("--data", type=options.DATA, help=f"Labelled images: {DATASETS}.")
benchmark_binary = click.option(
    "--benchmark-binary",
    type=PathOr((), "PATH"),
    help="Program that measures on adb: LiteRT's benchmark_model, or onnxruntime_perf_test.",
)
operators = click.option("--profile-ops", "operators", is_flag=True, help="Time each operator too.")

delegation = options.combined(
    click.option(
        "--delegate",
        type=Delegate(),
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
)

_measured = options.combined(
    click.argument("sources", type=Model(), metavar="[ARTIFACT|MODEL]...", nargs=-1),
    click.option(
        "--threads",
        "--num-threads",
        type=CountList(THREADS),
        default="1",
        help="Threads of the engine.",
    ),
    click.option(
        "--batch", "batches", type=CountList(IMAGES_PER_RUN), default="1", help="Images per run."
    ),
    options.scheme,
    delegation,
    click.option(
        "--device",
        "devices",
        type=DEVICE,
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
        show_default=False,
        help="Then run without a pause for so long, such as 10m, and report latency over time.",
    ),
    operators,
    click.option(
        "--plot",
        type=Output(file=True),
        help="Plot the operators of the first artifact as a .png file; with --profile-ops.",
    ),
    accuracy,
    labelled_data,
    options.loading,
    result_files,
    options.common,
)


@click.command()
@click.option(
    "--engine",
    "engines",
    type=NameList(),
    default=TFLITE_ENGINES[0],
    help="Engines: litert, openvino or both; or tflm for what TFLite Micro makes of ARTIFACTs: "
    "memory, operators, and logits compared with LiteRT's reference kernels; nothing is timed.",
)
@_measured
def tflite(engines: Sequence[str], **arguments: Any) -> Outcome:
    """Measure latency, memory and, with --accuracy, accuracy of TFLite files.

    A MODEL is exported first; by default the shipped CIFAR-10 model.
    """
    engines = [choose(name, TFLITE_ENGINES, what="engine") for name in engines]
    if engines == ["tflm"]:
        return prove_on_tflm(arguments["sources"], arguments["data"])
    if "tflm" in engines:
        raise InvalidRequest("--engine tflm times nothing: name it by itself")
    return _measure("tflite", engines=engines, **arguments)


@click.command()
@click.option(
    "--engine",
    "engines",
    type=NameList(),
    default="onnxruntime",
    help="Engines: onnxruntime, openvino or both.",
)
@_measured
def onnx(**arguments: Any) -> Outcome:
    """Measure latency, memory and, with --accuracy, accuracy of ONNX files.

    A MODEL is exported first; by default the shipped CIFAR-10 model.
    """
    return _measure("onnx", **arguments)


@click.command()
@_measured
def ncnn(**arguments: Any) -> Outcome:
    """Measure latency, memory and, with --accuracy, accuracy of ncnn files (.ncnn.param).

    A MODEL is exported first; by default the shipped CIFAR-10 model.
    """
    return _measure("ncnn", **arguments)


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
    files: TableFiles,
    delegate_options: Sequence[tuple[str, str]],
    **arguments: Any,
) -> Outcome:
    """Measures artifacts of one format; the arguments are those of ``api.benchmark``."""
    if plot is not None:
        if not arguments["operators"]:
            raise InvalidRequest("--plot needs --profile-ops: it plots the operators")
        options.check_plot(plot)
    settings = _settings(delegate_options)
    exported = bool(sources) and all(name.endswith(SUFFIXES.get(format, "")) for name in sources)
    if format != "keras" and not exported:
        options.use_tensorflow()
    from cct_export import api
    from cct_export.bench import record
    from cct_export.report import bench
    from cct_export.report.terminal import status

    with status() as progress:
        results = api.benchmark(
            format, sources=sources, delegate_options=settings, progress=progress, **arguments
        )
    outputs = files.of_results(results)
    if plot is not None and (profile := results[0].operators) is not None:
        title = results[0].artifact.path
        outputs.append(OutputFile(plot, lambda path: bench.plot_operators(profile, path, title)))
    return Outcome(
        record.to_dict(results),
        exit_code(results, arguments["profile"]),
        files=outputs,
        show=lambda: bench.show(results),
    )


def _settings(options: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns the options of a delegate; refuses one that is given twice."""
    settings = dict(options)
    if len(settings) < len(options):
        raise InvalidRequest("an option of the delegate is given twice")
    return settings


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
    profile = choose(profile, PROFILES, what="profile")
    limit = PROFILES[profile].agreement
    if profile == "strict" and any(row.times_ns and exceeds(spread(row), limit) for row in results):
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASSED


@click.command()
@click.argument(
    "sources", type=Model(), metavar="ARTIFACT|MODEL|RESULT...", nargs=-1, required=True
)
@click.option(
    "--threads", "--num-threads", type=Number(THREADS), default=1, help="Threads of each engine."
)
@click.option("--batch", type=Number(IMAGES_PER_RUN), default=1, help="Images per run.")
@delegation
@click.option(
    "--device",
    type=DEVICE,
    default="local",
    help="Where to measure: local, ssh:USER@HOST[:PORT] or adb[:SERIAL].",
)
@benchmark_binary
@profile
@timing
@operators
@accuracy
@labelled_data
@options.loading
@result_files
@options.common
def compare(
    sources: tuple[str, ...],
    files: TableFiles,
    delegate_options: Sequence[tuple[str, str]],
    **arguments: Any,
) -> Outcome:
    """Compare artifacts, models and saved results; ratios are to the first.

    Artifacts and models are measured interleaved; a RESULT is what --json wrote, here or elsewhere.
    """
    settings = _settings(delegate_options)
    from cct_export import api
    from cct_export.bench import record
    from cct_export.report.bench import show
    from cct_export.report.terminal import status

    with status() as progress:
        results = api.compare(sources, delegate_options=settings, progress=progress, **arguments)
    return Outcome(
        record.to_dict(results),
        exit_code(results, arguments["profile"]),
        files=files.of_results(results),
        show=lambda: show(results, ratios=True),
    )


@click.command()
@click.argument("sources", type=options.FILE, metavar="[ARTIFACT]...|[RESULT]", nargs=-1)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    required=True,
    help="What `cct-bench … --repeats 5 --json` wrote before the change.",
)
@click.option(
    "--max-regression",
    type=Percentage(),
    default="5%",
    help="Maximum growth of the latency.",
)
@click.option(
    "--max-drop",
    type=Number(POINTS),
    default=0.5,
    help="Maximum loss of top-1 accuracy in points, where the baseline has an accuracy.",
)
@click.option("--any-machine", is_flag=True, help="Accept a baseline of another machine.")
@click.option("--device", type=DEVICE, help="Device of the baseline, where it is another machine.")
@click.option(
    "--delegate",
    "delegates",
    type=Delegate(),
    multiple=True,
    help="Delegate of the baseline that is a library; may be repeated.",
)
@click.option(
    "--delegate-option",
    "delegate_options",
    type=Setting(),
    multiple=True,
    help="Option of the baseline's delegates; may be repeated.",
)
@benchmark_binary
@timing
@labelled_data
@options.loading
@result_files
@options.common
def check(sources: tuple[str, ...], files: TableFiles, **arguments: Any) -> Outcome:
    """Check whether artifacts became slower or less accurate than a baseline.

    Measures the artifacts of the baseline again, or the ARTIFACTs that replace them, row by row, in
    five repeats; or judges a RESULT that --json wrote. What the baseline names beyond this machine
    and its files has to be named here too; otherwise the command says how, and ends. Ends with 5
    after a regression of latency, 3 if parity and 4 if accuracy failed, 7 if the measurement is
    inconclusive.
    """
    from cct_export import api
    from cct_export.bench import record
    from cct_export.report.bench import show_verdicts
    from cct_export.report.terminal import status

    with status() as progress:
        verdicts, results = api.check(sources=sources, progress=progress, **arguments)
    statuses = {verdict.status for verdict in verdicts}
    codes = (code for status, code in EXIT_CODES.items() if status in statuses)
    fields = record.to_dict(results) | {"verdicts": [verdict.to_dict() for verdict in verdicts]}
    return Outcome(
        fields,
        next(codes, ExitCode.PASSED),
        files=files.of_results(results),
        show=lambda: show_verdicts(verdicts),
    )
