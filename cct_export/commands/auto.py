"""``cct-export auto``."""

from typing import Any

import click

from cct_export.commands import export as exporting
from cct_export.commands import options
from cct_export.commands.options import Outcome
from cct_export.commands.outputs import TableFiles, table_files
from cct_export.commands.types import NameList, PathOr
from cct_export.specs import ENGINE_FORMATS


@click.command()
@exporting.model
@click.option(
    "--engines",
    type=NameList(ENGINE_FORMATS),
    metavar="ENGINE[,...]",
    default=(),
    show_default="all that are installed",
    help=f"Engines to choose from, separated by commas: {', '.join(ENGINE_FORMATS)}.",
)
@exporting.calibrate
@exporting.rounding
@exporting.min_sqnr
@exporting.max_drop
@exporting.images
@options.softmax
@options.loading
@click.option(
    "-o",
    "--output",
    type=PathOr((), "STEM|FOLDER/"),
    help="File to write, without the suffix, which depends on what is chosen, or a folder for it; "
    "by default named after the model.",
)
@table_files
@options.common
def auto(model: str, files: TableFiles, **arguments: Any) -> Outcome:
    """Export MODEL in the engine and the quantization scheme that are the fastest here.

    Exports MODEL in every scheme for every engine, verifies each file in its engine, times all in
    turn on one thread of this machine, and writes the fastest that meets the constraints. The files
    take one image at a time. MODEL is a .keras file, a run directory, a preset, or anything that
    `cct-export import` takes; by default the shipped CIFAR-10 model.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.records import TriedScheme
    from cct_export.report.candidates import candidate_columns
    from cct_export.report.export import show_export
    from cct_export.report.terminal import status

    with status() as progress:
        exported = api.export_auto(model, progress=progress, **arguments)
    rows = exported.candidates
    return Outcome(
        exported.to_dict(),
        files=files.of_table(candidate_columns(rows), rows, TriedScheme),
        show=lambda: show_export(exported),
    )
