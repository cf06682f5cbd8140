"""``cct-export train``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands.options import common, start_keras
from cct_export.specs import DEFAULT_MODEL, TrainSpec


@click.command()
@click.option("--model", default=DEFAULT_MODEL, help="Preset to train.")
@click.option("--data", default="cifar10", help="cifar10, digits, a folder or an .npz.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=TrainSpec.epochs,
    help="Passes over the training images.",
)
@click.option("--batch", type=click.IntRange(1), default=TrainSpec.batch, help="Images per step.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=TrainSpec.seed,
    help="Of weights, order, augmentation and the held-out images.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="runs/cct", help="Run directory."
)
@click.option("--resume", is_flag=True, help="Go on with the run in the directory.")
@common
def command(
    model: str, data: str, epochs: int, batch: int, seed: int, output: Path, resume: bool
) -> dict[str, Any]:
    """Train a CCT by the recipe of the keras.io example.

    AdamW 1e-3, weight decay 1e-4, label smoothing 0.1; the best of all epochs by accuracy on 10 %
    of the training images is kept. The run directory gets best.keras, metrics.csv, curves.png and
    a model card; it is a MODEL for every other command.
    """
    start_keras()
    from cct_export import api
    from cct_export.report.training import TrainingProgress

    recipe = TrainSpec(data=data, epochs=epochs, batch=batch, seed=seed)
    with TrainingProgress(epochs) as progress:
        trained = api.train(output, recipe, model=model, resume=resume, progress=progress)
    click.echo(
        f"{trained.best}: top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%} "
        f"on {trained.samples:,} test images, best of {trained.epochs} epochs",
        err=True,
    )
    return trained.to_dict()
