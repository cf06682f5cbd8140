"""``cct-export onnx``."""

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
    type=click.Choice(["float32", "uint8"]),
    default="float32",
    help="Type of the image input; logits are float32.",
)
@click.option(
    "--opset",
    type=int,
    help="ONNX operator set: 13 to 23, by default 20; of models that are no CCT 13 to 18, by "
    "default 18.",
)
@click.option(
    "--dynamic-axes/--no-dynamic-axes",
    default=True,
    help="Take any number of images, or exactly one.",
)
@options.quantization
@click.option(
    "--target",
    type=click.Choice(["x86", "arm64"]),
    default="x86",
    help="Processor that integers are chosen for: unsigned activations for x86, signed for arm64.",
)
@options.images
@options.no_fold
@options.output
@options.common
def command(
    model: str,
    scheme: str,
    io: str,
    opset: int,
    dynamic_axes: bool,
    data: str | None,
    calibration: int,
    samples: int,
    no_fold: tuple[str, ...],
    output: Path | None,
    **quantization: Any,
) -> dict[str, Any]:
    """Export MODEL to ONNX and prove that the file gives its logits.

    MODEL is a .keras file, a run directory, a preset, or anything that `cct-export import` takes;
    without it the shipped CIFAR-10 model.
    """
    options.start_keras("tensorflow")
    from cct_export import api

    return options.report_export(
        api.export_onnx(
            model,
            output=output,
            scheme=scheme,
            io=io,
            data=data,
            calibration_samples=calibration,
            parity_samples=samples,
            opset=opset,
            dynamic_batch=dynamic_axes,
            no_fold=no_fold,
            **quantization,
        )
    )
