"""``cct-export import``, ``inspect`` and ``push``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands import options
from cct_export.commands.labels import read_labels
from cct_export.commands.options import LABELS, Outcome
from cct_export.commands.outputs import TableFiles, table_files
from cct_export.commands.types import Model, Number, OneOf, Output, PathOr
from cct_export.errors import InvalidRequest
from cct_export.model import presets
from cct_export.specs import (
    CLASSES,
    GELUS,
    IMAGE_SIZE,
    NORMALIZATIONS,
    SIZE,
    SUFFIXES,
    ModelOptions,
)


@click.command("import")
@click.argument("foreign", type=Model("FOREIGN"))
@click.option(
    "--image-size",
    type=Number(IMAGE_SIZE),
    metavar="PIXELS",
    help="Height and width of the images; positions are interpolated to it.",
)
@click.option(
    "--classes",
    type=Number(CLASSES),
    help="Number of classes; where it differs from the file's, the head is reinitialized.",
)
@click.option(
    "--heads",
    type=Number(SIZE),
    help="Attention heads of a PyTorch model; by default of 64 channels each, as the paper's are.",
)
@click.option(
    "--normalize",
    type=OneOf(NORMALIZATIONS),
    help="Mean and standard deviation that the model normalizes images with; by default the "
    "paper's for such a tokenizer: with kernels below 7 cifar10 (cifar100 with 100 classes), else "
    "imagenet.",
)
@click.option(
    "--gelu",
    type=OneOf(GELUS),
    help="GELU of a Keras model whose file does not tell; by default the example's, tanh.",
)
@click.option(
    "--labels",
    type=PathOr((), LABELS),
    help="Names of the classes: a text file with one in each line, a JSON list, or the names.",
)
@click.option(
    "-o",
    "--output",
    type=Output(),
    help="The .keras file to write; by default named after FOREIGN.",
)
@options.common
def import_(foreign: str, labels: str | None, **arguments: Any) -> Outcome:
    """Write a .keras file of a CCT that other code saved.

    FOREIGN is a PyTorch state dict of the paper's code or of vit-pytorch (.pth, .pt, .safetensors);
    of the keras.io example a .weights.h5, a .keras file, or a SavedModel of Keras 2, also on the
    Hugging Face Hub (hf:OWNER/NAME). No code in it is run, only the arithmetic of a SavedModel.
    Other commands take FOREIGN as MODEL too.
    """
    names = () if labels is None else read_labels(labels)
    from cct_export import api
    from cct_export.report.export import show_import
    from cct_export.report.terminal import status

    with status(f"importing {foreign}"):
        imported = api.import_model(foreign, labels=names, **arguments)
    return Outcome({"imported": imported.to_dict()}, show=lambda: show_import(imported))


@click.command()
@click.argument("artifact", type=PathOr(presets.MODELS, "ARTIFACT|MODEL"))
@click.option("--against", type=PathOr((), "OTHER"), help="Compare ARTIFACT with this file.")
@click.option("--tensors", is_flag=True, help="List every quantized tensor; JSON always does.")
@options.loading
@table_files
@options.common
def inspect(
    artifact: str,
    against: str | None,
    tensors: bool,
    files: TableFiles,
    options: ModelOptions,
) -> Outcome:
    """List the operators of ARTIFACT, any .tflite or .onnx file, or the layers of MODEL.

    Of an artifact: every operator with its output shape, multiply-accumulates (MACs) per image,
    parameters and delegate partition; totals; quantized tensors. With --against only the totals
    and the operators by kind, of both files.

    Of a preset or any other MODEL: every layer with its output shape, parameters and MACs.
    --markdown and --csv have the operators of ARTIFACT or the layers of MODEL.
    """
    from cct_export import api
    from cct_export.api.request import check_artifact
    from cct_export.records import Layer, Operator
    from cct_export.report import inspection
    from cct_export.report.terminal import status

    if not artifact.endswith(tuple(SUFFIXES.values())):
        if against is not None or tensors:
            raise InvalidRequest("--against and --tensors are for .tflite and .onnx files")
        with status("loading the model"):
            model = api.inspect_model(artifact, options=options)
        return Outcome(
            {"model": model.to_dict()},
            files=files.of_table(inspection.layer_columns(), model.layers, Layer),
            show=lambda: inspection.show_model(model),
        )
    if against is not None:
        check_artifact(Path(against))
    file = api.inspect(artifact)
    other = None if against is None else api.inspect(against)

    def show() -> None:
        if other is None:
            inspection.show(file, tensors)
        else:
            inspection.show_comparison(file, other)

    return Outcome(
        inspection.record(file, other),
        files=files.of_table(inspection.operator_columns(), file.operators, Operator),
        show=show,
    )


@click.command()
@click.argument("hub_id")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default="runs/cct",
    help="Run directory.",
)
@click.option(
    "--artifact",
    "artifacts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    help="A .tflite or .onnx file exported from the run, pushed with its sidecar; may be repeated.",
)
@click.option(
    "--license",
    metavar="ID",
    help="License for the model card, as the Hub's identifier, such as apache-2.0.",
)
@click.option(
    "--revision",
    metavar="BRANCH",
    help="Branch to commit to, created if it does not exist; by default main.",
)
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--dry-run", is_flag=True, help="Push nothing, and list the files.")
@options.common
def push(hub_id: str, **arguments: Any) -> Outcome:
    """Push a finished run to the Hugging Face Hub as HUB_ID (OWNER/NAME).

    The repository is created if it does not exist. One commit has the model card, the best weights,
    the run's record, metrics, pictures and calibration statistics, but not the state to resume
    from. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from cct_export import api
    from cct_export.report.export import show_push
    from cct_export.report.terminal import status

    with status(f"pushing to {hub_id}"):
        pushed = api.push(hub_id, **arguments)
    return Outcome({"pushed": pushed.to_dict()}, show=lambda: show_push(pushed))
