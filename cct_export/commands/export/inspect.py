"""``cct-export inspect``."""

from typing import Any

import click

from cct_export.commands import options


@click.command()
@click.argument("artifact")
@click.option(
    "--against", metavar="OTHER", help="Put this file's figures beside those of ARTIFACT."
)
@click.option("--tensors", is_flag=True, help="List every quantized tensor; JSON always does.")
@options.common
def command(artifact: str, against: str | None, tensors: bool) -> dict[str, Any]:
    """Show what is in ARTIFACT, a .tflite or .onnx file, ours or any other.

    Every operator with its output shape, multiply-accumulates (MACs) per image, parameters and
    delegate partition; totals; what is quantized. With --against only the totals and the
    operators by kind, of both files.
    """
    from cct_export import api
    from cct_export.report import inspection

    found = api.inspect(artifact)
    other = None if against is None else api.inspect(against)
    if other is None:
        inspection.show(found, tensors)
    else:
        inspection.compare(found, other)
    return inspection.record(found, other)
