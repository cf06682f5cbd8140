"""``cct-export import``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options
from cct_export.errors import InvalidData
from cct_export.specs import GELUS, NORMALIZATIONS


@click.command("import")
@click.argument("foreign")
@click.option(
    "--image-size",
    type=click.IntRange(8, 4096),
    metavar="PIXELS",
    help="Height and width of the images; positions are interpolated to it.",
)
@click.option(
    "--classes",
    type=click.IntRange(2),
    help="Number of classes; where it differs from the file's, the classifier begins anew.",
)
@click.option(
    "--heads",
    type=click.IntRange(1),
    help="Attention heads of a PyTorch model; by default of 64 channels each, as the paper's are.",
)
@click.option(
    "--normalize",
    type=click.Choice(NORMALIZATIONS),
    help="What images are normalized with inside of the model; by default as the paper's "
    "models with such a tokenizer: with kernels below 7 cifar10 (cifar100 with 100 classes), else "
    "imagenet.",
)
@click.option(
    "--gelu",
    type=click.Choice(GELUS),
    help="Which GELU a Keras model has, where its file does not tell; by default the example's, "
    "tanh.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text file with the name of a class in each line.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, .keras; by default named after FOREIGN.",
)
@options.common
def command(
    foreign: str, labels: Path | None, output: Path | None, **changes: Any
) -> dict[str, Any]:
    """Make a .keras file of a CCT that other code saved.

    FOREIGN is a PyTorch state dict of the paper's code or of vit-pytorch (.pth, .pt, .safetensors);
    of the keras.io example a .weights.h5, a .keras file, or a SavedModel of Keras 2, also on the
    Hugging Face Hub (hf:OWNER/NAME). Nothing in it is run but a SavedModel's arithmetic. Other
    commands take FOREIGN as MODEL too.
    """
    names = _lines(labels) if labels else ()
    options.start_keras()
    from cct_export import api
    from cct_export.report import console

    found = api.import_model(foreign, output=output, labels=names, **changes)
    console.imported(found)
    return {"imported": found.to_dict()}


def _lines(path: Path) -> tuple[str, ...]:
    """Returns the lines of a text file that are not empty; raises ``InvalidData`` if all are."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidData(f"{path} holds no labels: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InvalidData(f"{path} holds no labels: write the name of a class in each line")
    return names
