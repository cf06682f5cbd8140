"""``cct-bench compare`` and ``check``: results side by side, and against a baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cct_export.commands import bench, options
from cct_export.commands.options import ExitCode, Outcome
from cct_export.commands.types import Percentage

# By status of a verdict; the first that occurs is the exit code.
EXIT_CODES = {
    "parity": ExitCode.PARITY_FAILED,
    "accuracy": ExitCode.ACCURACY_LOST,
    "regression": ExitCode.REGRESSION,
    "inconclusive": ExitCode.INCONCLUSIVE,
}


@click.command()
@click.argument("sources", metavar="ARTIFACT|MODEL|RESULT...", nargs=-1, required=True)
@click.option(
    "--threads", "--num-threads", type=click.IntRange(1), default=1, help="Threads of each engine."
)
@click.option("--batch", type=click.IntRange(1), default=1, help="Images per run.")
@click.option(
    "--device",
    metavar="NAME",
    default="local",
    help="Where to measure: local, ssh:USER@HOST[:PORT] or adb[:SERIAL].",
)
@bench.benchmark_binary
@bench.profile
@bench.timing
@bench.operators
@bench.accuracy
@bench.labelled_data
@click.option("--html", type=click.Path(path_type=Path), help="Write an HTML page with charts.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write a Markdown table.")
@click.option("--csv", type=click.Path(path_type=Path), help="Write comma-separated values.")
@options.common
def compare(
    sources: tuple[str, ...],
    html: Path | None,
    markdown: Path | None,
    csv: Path | None,
    **arguments: Any,
) -> Outcome:
    """Compare artifacts, models and saved results; ratios are to the first.

    Artifacts and models are measured interleaved; a RESULT is what --json wrote, here or elsewhere.
    """
    bench.check_labelled(arguments["accuracy"], arguments["data"])
    _check_outputs([path for path in (html, markdown, csv) if path is not None], sources)
    from cct_export import api, machine
    from cct_export.bench import record
    from cct_export.files import write_text
    from cct_export.report import tables
    from cct_export.report.bench import show
    from cct_export.report.page import page
    from cct_export.report.terminal import status

    with status() as progress:
        results = api.compare(sources, progress=progress, **arguments)
    show(results, ratios=True)
    if html is not None:
        write_text(html, page(machine.describe(), results))
    if markdown is not None:
        write_text(markdown, tables.markdown(results))
    if csv is not None:
        write_text(csv, tables.csv(results))
    return Outcome(record.to_dict(results), bench.exit_code(results, arguments["profile"]))


def _check_outputs(paths: Sequence[Path], sources: Sequence[str]) -> None:
    """Refuses, before any work, files that would replace another."""
    for path in paths:
        options.check_output(path)
        if str(path) in sources or paths.count(path) > 1:
            raise click.UsageError(f"{path} is named twice: choose another file for the table")


@click.command()
@click.argument("sources", metavar="[ARTIFACT]...|[RESULT]", nargs=-1)
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
    type=click.FloatRange(0, 100),
    default=0.5,
    help="Maximum loss of top-1 accuracy in points, where the baseline has an accuracy.",
)
@click.option("--any-machine", is_flag=True, help="Accept a baseline of another machine.")
@bench.benchmark_binary
@bench.timing
@bench.labelled_data
@options.common
def check(sources: tuple[str, ...], **arguments: Any) -> Outcome:
    """Check whether artifacts became slower or less accurate than a baseline.

    Measures the artifacts of the baseline again, or the ARTIFACTs that replace them, row by row, in
    five repeats; or judges a RESULT that --json wrote. Ends with 5 after a regression of latency,
    3 if parity and 4 if accuracy failed, 7 if the measurement is inconclusive.
    """
    from cct_export import api
    from cct_export.bench import record
    from cct_export.report.bench import show_verdicts
    from cct_export.report.terminal import status

    with status() as progress:
        verdicts, results = api.check(sources=sources, progress=progress, **arguments)
    show_verdicts(verdicts)
    statuses = {verdict.status for verdict in verdicts}
    codes = (code for status, code in EXIT_CODES.items() if status in statuses)
    fields = record.to_dict(results) | {"verdicts": [verdict.to_dict() for verdict in verdicts]}
    return Outcome(fields, next(codes, ExitCode.PASSED))
