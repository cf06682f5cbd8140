"""``cct-bench check``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import measuring, options

# In the order in which they are told: the first that occurs is the exit code.
EXIT_CODES = {
    "parity": options.PARITY_FAILED,
    "accuracy": 4,
    "regression": 5,
    "inconclusive": options.INCONCLUSIVE,
    "pass": 0,
}


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
    type=measuring.Percentage(),
    default="5%",
    help="Growth of the latency that is allowed.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=0.5,
    help="Points of top-1 that may be lost, where the baseline has an accuracy.",
)
@click.option("--any-machine", is_flag=True, help="Compare with a baseline of another machine.")
@measuring.benchmark_binary
@measuring.timing
@measuring.labelled
@options.common
def command(sources: tuple[str, ...], **arguments: Any) -> dict[str, Any]:
    """Tell whether artifacts became slower or less accurate since a baseline.

    Measures the baseline's artifacts again, or the ARTIFACTs that take their places, row by row,
    in five repeats; or judges a RESULT that --json wrote. Ends with 5 if one became slower, 3 if
    parity and 4 if accuracy failed, 7 if that cannot be told.
    """
    from cct_export import api
    from cct_export.report import bench
    from cct_export.report.progress import saying

    with saying() as say:
        verdicts, results = api.check(sources=sources, progress=say, **arguments)
    bench.verdicts(verdicts)
    found = {verdict.status for verdict in verdicts}
    code = next((code for status, code in EXIT_CODES.items() if status in found), 0)
    record = bench.record(results) | {"verdicts": [verdict.to_dict() for verdict in verdicts]}
    return record | {"exit_code": code}
