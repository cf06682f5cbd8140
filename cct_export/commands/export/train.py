"""``cct-export train``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands.options import common, start_keras
from cct_export.specs import DEFAULT_MODEL, STOCHASTIC_DEPTHS, TrainSpec


def _recipe(function: Any) -> Any:
    """Adds the options that make a ``TrainSpec``."""
    for option in (
        click.option(
            "--freeze",
            metavar="PARTS",
            help="With --from, what stays as it is, with commas between: tokenizer, positions, "
            "blocks (blocks:N are the first N), norm, pooling, head.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            default=TrainSpec.seed,
            help="Of weights, order, augmentation and the held-out images.",
        ),
        click.option(
            "--weight-decay",
            type=click.FloatRange(0),
            default=TrainSpec.weight_decay,
            help="Of AdamW, decoupled.",
        ),
        click.option(
            "--learning-rate",
            type=click.FloatRange(0, min_open=True),
            default=TrainSpec.learning_rate,
            help="Of AdamW, constant.",
        ),
        click.option(
            "--batch", type=click.IntRange(1), default=TrainSpec.batch, help="Images per step."
        ),
        click.option(
            "--epochs",
            type=click.IntRange(1),
            default=TrainSpec.epochs,
            help="Passes over the training images.",
        ),
        click.option("--data", default="cifar10", help="cifar10, digits, a folder or an .npz."),
    ):
        function = option(function)
    return function


@click.command()
@click.option("--model", help=f"Preset to train.  [default: {DEFAULT_MODEL}]")
@click.option(
    "--from",
    "start",
    metavar="MODEL",
    help="Fine-tune this CCT instead: for other classes it gets a new head, for another image size "
    "its learned positions are interpolated.",
)
@click.option(
    "--image-size",
    type=click.IntRange(1, 4096),
    metavar="PIXELS",
    help="Height and width of the images, by default the model's.",
)
@click.option(
    "--stochastic-depth-mode",
    type=click.Choice(STOCHASTIC_DEPTHS),
    help="What is dropped at once, by default as the model has it: a residual branch for each "
    "sample by itself, the same without scaling up what is kept, or for the whole batch, then not "
    "computed.",
)
@_recipe
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="runs/cct", help="Run directory."
)
@click.option("--resume", is_flag=True, help="Go on with the run in the directory.")
@common
def command(
    model: str | None,
    start: str | None,
    image_size: int | None,
    stochastic_depth_mode: str | None,
    output: Path,
    resume: bool,
    **recipe: Any,
) -> dict[str, Any]:
    """Train a CCT by the recipe of the keras.io example, or fine-tune one.

    AdamW, label smoothing 0.1; the best of all epochs by accuracy on 10 % of the training images is
    kept. The run directory gets best.keras, metrics.csv, curves.png and a model card; it is a MODEL
    for every other command.
    """
    if model is not None and start is not None:
        raise click.UsageError("--from brings its architecture: leave --model out")
    frozen = _parts(recipe.pop("freeze"))
    start_keras()
    from cct_export import api
    from cct_export.report.training import TrainingProgress

    with TrainingProgress(recipe["epochs"]) as progress:
        trained = api.train(
            output,
            TrainSpec(**recipe, freeze=frozen),
            model=model,
            resume=resume,
            progress=progress,
            start=start,
            image_size=image_size,
            stochastic_depth_mode=stochastic_depth_mode,
        )
    click.echo(
        f"{trained.best}: top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%} "
        f"on {trained.samples:,} test images, best of {trained.epochs} epochs",
        err=True,
    )
    return trained.to_dict()


def _parts(text: str | None) -> tuple[str, ...]:
    """Returns the words between the commas; where there are none, the text, which is no part."""
    if text is None:
        return ()
    return tuple(word.strip() for word in text.split(",") if word.strip()) or (text,)
