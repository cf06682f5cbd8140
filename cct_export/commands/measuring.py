"""The one command behind ``cct-bench tflite``, ``onnx`` and ``keras``."""

from typing import Any

import click

from cct_export.commands import options


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
    @click.option("--batch", type=CountList(), default="1", help="Images per run.")
    @options.scheme
    @click.option("--accuracy", is_flag=True, help="Measure accuracy too, on --data.")
    @click.option("--data", help="Labelled images: cifar10, digits, a folder or an .npz.")
    @click.option("--min-runs", type=click.IntRange(1), default=50, help="Timed runs at least.")
    @click.option(
        "--min-seconds",
        type=click.FloatRange(0),
        default=1.0,
        help="Seconds of timed runs at least.",
    )
    @click.option(
        "--warmup-seconds",
        type=click.FloatRange(0),
        default=0.5,
        help="Seconds of untimed runs before.",
    )
    @options.common
    def measuring(
        sources: tuple[str, ...],
        threads: tuple[int, ...],
        batch: tuple[int, ...],
        scheme: str,
        accuracy: bool,
        data: str | None,
        min_runs: int,
        min_seconds: float,
        warmup_seconds: float,
    ) -> dict[str, Any]:
        if accuracy and data is None:
            raise click.UsageError("--accuracy needs --data: the labelled images to measure on")
        if format != "keras" and not all(
            source.endswith(f".{format}") for source in sources or [""]
        ):
            options.start_keras("tensorflow")
        from cct_export import api
        from cct_export.report import console, record

        results = api.bench(
            format,
            sources,
            threads,
            batch,
            scheme,
            data,
            accuracy,
            min_runs=min_runs,
            min_s=min_seconds,
            warmup_s=warmup_seconds,
        )
        console.bench(results)
        passed = all(result.parity is None or result.parity.passed for result in results)
        return record.bench(results) | {"exit_code": 0 if passed else options.PARITY_FAILED}

    return measuring
