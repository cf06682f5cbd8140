"""``cct-export inspect``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options

_FILES = (".tflite", ".onnx")


@click.command()
@click.argument("artifact", metavar="ARTIFACT|MODEL")
@click.option(
    "--against", metavar="OTHER", help="Put this file's figures beside those of ARTIFACT."
)
@click.option("--tensors", is_flag=True, help="List every quantized tensor; JSON always does.")
@options.common
def command(artifact: str, against: str | None, tensors: bool) -> dict[str, Any]:
    """Show what is in ARTIFACT, a .tflite or .onnx file, ours or any other, or in MODEL.

    Every operator with its output shape, multiply-accumulates (MACs) per image, parameters and
    delegate partition; totals; what is quantized. With --against only the totals and the
    operators by kind, of both files.

    Of a preset or any other MODEL: every layer with its output shape, parameters and MACs.
    """
    from cct_export import api
    from cct_export.report import inspection

    if _is_model(artifact):
        if against is not None or tensors:
            raise click.UsageError("--against and --tensors are for .tflite and .onnx files")
        return _model(artifact)
    found = api.inspect(artifact)
    other = None if against is None else api.inspect(against)
    if other is None:
        inspection.show(found, tensors)
    else:
        inspection.compare(found, other)
    return inspection.record(found, other)


def _is_model(word: str) -> bool:
    return Path(word).suffix not in _FILES


def _model(word: str) -> dict[str, Any]:
    options.start_keras()
    from cct_export import api
    from cct_export.report import architecture

    found = api.inspect_model(word)
    architecture.show(found)
    return {"model": found.to_dict()}
