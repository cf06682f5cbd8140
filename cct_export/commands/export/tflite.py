"""``cct-export tflite``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options
from cct_export.specs import DEFAULT_MODEL


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@options.scheme
@click.option(
    "--io",
    type=click.Choice(["float32", "uint8", "int8"]),
    help="Type of the image input; by default float32, of int8-full int8. Logits are float32, of "
    "int8-full like the image.",
)
@options.quantization
@options.images
@options.no_fold
@options.output
@options.common
def command(
    model: str,
    scheme: str,
    io: str | None,
    data: str | None,
    calibration: int,
    samples: int,
    no_fold: tuple[str, ...],
    output: Path | None,
    **quantization: Any,
) -> dict[str, Any]:
    """Export MODEL to TFLite and prove that the file gives its logits.

    MODEL is a .keras file, a run directory, a preset, or anything that `cct-export import` takes;
    without it the shipped CIFAR-10 model.
    """
    options.start_keras("tensorflow")
    from cct_export import api

    return options.report_export(
        api.export_tflite(
            model,
            output=output,
            scheme=scheme,
            io=io,
            data=data,
            calibration_samples=calibration,
            parity_samples=samples,
            no_fold=no_fold,
            **quantization,
        )
    )
