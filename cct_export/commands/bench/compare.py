"""``cct-bench compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cct_export.commands import measuring, options
from cct_export.files import write_text


@click.command()
@click.argument("sources", metavar="ARTIFACT|MODEL|RESULT...", nargs=-1, required=True)
@click.option(
    "--threads", "--num-threads", type=click.IntRange(1), default=1, help="Of every engine."
)
@click.option("--batch", type=click.IntRange(1), default=1, help="Images per run.")
@click.option(
    "--device",
    metavar="NAME",
    default="local",
    help="Where to measure: local, ssh:USER@HOST[:PORT] or adb[:SERIAL].",
)
@measuring.benchmark_binary
@measuring.profile
@measuring.timing
@measuring.operators
@measuring.accuracy
@measuring.labelled
@click.option("--html", type=click.Path(path_type=Path), help="Write a page of its own.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write a table in Markdown.")
@click.option("--csv", type=click.Path(path_type=Path), help="Write a table with commas.")
@options.common
def command(
    sources: tuple[str, ...],
    html: Path | None,
    markdown: Path | None,
    csv: Path | None,
    **arguments: Any,
) -> dict[str, Any]:
    """Put artifacts, models and saved results side by side; ratios are to the first.

    Artifacts and models are measured in turn; a RESULT is what --json wrote, here or elsewhere.
    """
    measuring.check_labelled(arguments["accuracy"], arguments["data"])
    pages = [path for path in (html, markdown, csv) if path is not None]
    _check_pages(pages, sources)
    from cct_export import api
    from cct_export.report import bench, tables
    from cct_export.report.page import page
    from cct_export.report.progress import saying

    with saying() as say:
        results = api.compare(sources, progress=say, **arguments)
    bench.show(results, ratios=True)
    record = bench.record(results)
    if html is not None:
        write_text(html, page(record["machine"], results))
    if markdown is not None:
        write_text(markdown, tables.markdown(results))
    if csv is not None:
        write_text(csv, tables.csv(results))
    return record | {"exit_code": measuring.outcome(results, arguments["profile"])}


def _check_pages(pages: Sequence[Path], sources: Sequence[str]) -> None:
    """Refuses, before any work, pages that would take the place of something else."""
    for path in pages:
        options.check_record_path(str(path))
        if str(path) in sources or pages.count(path) > 1:
            raise click.UsageError(f"{path} is named twice: choose another for the page")
