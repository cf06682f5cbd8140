"""``cct-export quantize-report``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options
from cct_export.specs import DEFAULT_MODEL, METHODS, ROUNDINGS, CalibrationSpec


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@click.option(
    "--format", type=click.Choice(["tflite", "onnx"]), default="tflite", help="Of which file."
)
@click.option(
    "--quantize", "scheme", metavar="SCHEME", default="int8", help="See cct-export tflite."
)
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Also measure the logits with each step alone quantized, and with all but each.",
)
@click.option(
    "--plot", metavar="FILE", type=click.Path(path_type=Path), help="Draw the bars, a .png."
)
@click.option(
    "--calibrate",
    type=click.Choice(METHODS),
    default=str(CalibrationSpec.methods),
    help="How the range of a tensor follows from its values.",
)
@click.option("--rounding", type=click.Choice(ROUNDINGS), default=ROUNDINGS[0], help="Of weights.")
@click.option("--samples", type=click.IntRange(1), default=100, help="Test images to compare on.")
@click.option(
    "--data", help="Images: cifar10, cifar100, digits, a folder, TFRecord shards or an .npz."
)
@options.common
def command(
    model: str,
    format: str,
    scheme: str,
    sensitivity: bool,
    plot: Path | None,
    calibrate: str,
    rounding: str,
    samples: int,
    data: str | None,
) -> dict[str, Any]:
    """Show where quantizing MODEL loses accuracy, step by step, the worst first.

    Every tensor of the quantized graph is compared with that of the float graph: noise ratio,
    range, and the share of the values that the integers cannot reach. Nothing is exported.
    """
    options.start_keras("tensorflow")
    from cct_export import api
    from cct_export.report import quantization
    from cct_export.report.progress import counting

    if plot is not None:
        options.check_plot(plot)
    with counting("steps") as progress:
        report = api.quantize_report(
            model,
            format=format,
            scheme=scheme,
            data=data,
            samples=samples,
            sensitivity=sensitivity,
            calibrate=calibrate,
            rounding=rounding,
            progress=progress,
        )
    quantization.show(report)
    if plot is not None:
        quantization.plot(report, plot)
    return report.to_dict()
