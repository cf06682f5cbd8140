"""Options and types of the commands that measure, and ``cct-bench tflite``, ``onnx``, ``keras``."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cct_export import errors
from cct_export.commands import options
from cct_export.specs import PROFILES

if TYPE_CHECKING:
    from cct_export.records import BenchResult

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class CountList(click.ParamType[Any]):
    """Whole numbers from 1 on, with commas between."""

    name = "N[,N...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Returns the numbers in ``value``."""
        if isinstance(value, tuple):
            return value
        try:
            counts = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            counts = ()
        if not counts or min(counts) < 1:
            self.fail(f"{value!r} is not a list of whole numbers from 1 on, such as 1 or 1,2,4")
        return counts


class Duration(click.ParamType[Any]):
    """Seconds, or a number with s, m or h."""

    name = "SECONDS|10m"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the seconds in ``value``."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a time such as 90, 90s, 10m or 1h")
        return float(match[1]) * _UNITS[match[2]]


class Percentage(click.ParamType[Any]):
    """A share, as 5% or 0.05."""

    name = "PERCENT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the share in ``value``, 0.05 for 5%."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(value))
        if not match:
            self.fail(f"{value!r} is not a share such as 5% or 0.05")
        share = float(match[1]) / (100 if match[2] else 1)
        if not match[2] and share > 1:
            self.fail(f"{value!r} is more than the whole: say {value}% for {share / 100:g}")
        return share


class Setting(click.ParamType[Any]):
    """A name and its value."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Returns name and value."""
        if isinstance(value, tuple):
            return value
        name, sign, content = str(value).partition("=")
        if not (name and sign):
            self.fail(f"{value!r} is not NAME=VALUE")
        return name, content


def timing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how often and how long; see ``wanted_timing``."""
    for option in (
        click.option("--repeats", type=click.IntRange(1), help="Do it all again, so many times."),
        click.option(
            "--warmup-seconds",
            "warmup_s",
            type=click.FloatRange(0),
            help="Seconds of untimed runs before.",
        ),
        click.option(
            "--min-seconds",
            "min_s",
            type=click.FloatRange(0),
            help="Seconds of timed runs at least.",
        ),
        click.option("--min-runs", type=click.IntRange(1), help="Timed runs at least."),
    ):
        function = option(function)
    return function


profile = click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="quick",
    help="quick: 50 runs and 1 s at least, p50; strict: 1,024 runs and 60 s at least in five "
    "repeats that must agree within 5 %, p90.",
)
accuracy = click.option("--accuracy", is_flag=True, help="Measure accuracy too, on --data.")
labelled = click.option(
    "--data",
    help="Labelled images: cifar10, cifar100, digits, a folder, TFRecord shards or an .npz.",
)
benchmark_binary = click.option(
    "--benchmark-binary",
    metavar="PATH",
    help="The program that measures on adb: LiteRT's benchmark_model, or onnxruntime_perf_test.",
)
operators = click.option("--profile-ops", "operators", is_flag=True, help="Time each operator too.")


def check_labelled(accuracy: bool, data: str | None) -> None:
    """Refuses ``--accuracy`` without ``--data``."""
    if accuracy and data is None:
        raise click.UsageError("--accuracy needs --data: the labelled images to measure on")


def outcome(results: "Sequence[BenchResult]", profile: str) -> int:
    """Returns the exit code of a measurement: that of the first row that went wrong.

    Repeats of a strict one must agree: it is not told by a warning alone that they do not.
    """
    from cct_export.bench.statistics import spread

    for result in results:
        if result.failure:
            return int(getattr(errors, result.failure_kind).exit_code)
        if result.parity is not None and not result.parity.passed:
            return options.PARITY_FAILED
    limit = PROFILES[profile].agreement
    if profile == "strict" and any(row.times_ns and spread(row) > limit for row in results):
        return options.INCONCLUSIVE
    return 0


def command(format: str, about: str) -> click.Command:
    """Returns the command that measures artifacts of ``format``."""

    @click.command(name=format, help=about)
    @click.argument("sources", metavar="[ARTIFACT|MODEL]...", nargs=-1)
    @click.option(
        "--threads",
        "--num-threads",
        type=CountList(),
        default="1",
        help="Threads the engine may use.",
    )
    @click.option("--batch", "batches", type=CountList(), default="1", help="Images per run.")
    @options.scheme
    @click.option(
        "--delegate",
        metavar="NAME",
        default="default",
        help="What the engine hands its work to; `cct-export doctor` lists what is here.",
    )
    @click.option(
        "--delegate-option",
        "delegate_options",
        type=Setting(),
        multiple=True,
        help="An option of the delegate; may be repeated.",
    )
    @click.option(
        "--allow-fallback",
        is_flag=True,
        help="Measure even if the delegate does not take every operator; the report says so.",
    )
    @click.option(
        "--device",
        "devices",
        metavar="NAME",
        multiple=True,
        default=("local",),
        help="Where to measure: local, ssh:USER@HOST[:PORT] or adb[:SERIAL]; several are measured "
        "at the same time.",
    )
    @benchmark_binary
    @profile
    @timing
    @click.option(
        "--sustained",
        "sustained_s",
        type=Duration(),
        default=0.0,
        help="Then run for so long without a pause: latency over time.",
    )
    @operators
    @click.option(
        "--plot",
        type=click.Path(path_type=Path),
        help="Draw the operators of the first artifact, a .png; with --profile-ops.",
    )
    @accuracy
    @labelled
    @options.common
    def measuring(sources: tuple[str, ...], plot: Path | None, **arguments: Any) -> dict[str, Any]:
        check_labelled(arguments["accuracy"], arguments["data"])
        if plot is not None:
            if not arguments["operators"]:
                raise click.UsageError("--plot draws what --profile-ops finds: add that")
            options.check_plot(plot)
        if format != "keras" and not all(
            source.endswith(f".{format}") for source in sources or [""]
        ):
            options.start_keras("tensorflow")
        from cct_export import api
        from cct_export.report import bench
        from cct_export.report.progress import saying

        names = [name for name, _ in arguments["delegate_options"]]
        if len(set(names)) < len(names):
            raise click.UsageError("an option of the delegate is given twice")
        arguments["delegate_options"] = dict(arguments["delegate_options"])
        with saying() as say:
            results = api.benchmark(format, sources=sources, progress=say, **arguments)
        bench.show(results)
        if plot is not None:
            bench.plot_operators(results[0], plot)
        return bench.record(results) | {"exit_code": outcome(results, arguments["profile"])}

    return measuring
