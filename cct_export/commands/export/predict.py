"""``cct-export predict``."""

from typing import Any

import click

from cct_export.commands import options


@click.command()
@click.argument("source", metavar="ARTIFACT|MODEL")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, help="Classes per image.")
@options.common
def command(source: str, images: tuple[str, ...], top: int) -> dict[str, Any]:
    """Classify PNG or JPEG files: the best classes with their probabilities."""
    if not source.endswith((".tflite", ".onnx")):
        options.start_keras()
    from cct_export import api
    from cct_export.report import console

    found = api.predict(source, images=images, top=top)
    console.predictions(found)
    return {"source": source, "predictions": [prediction.to_dict() for prediction in found]}
