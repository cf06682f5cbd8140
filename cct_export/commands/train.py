"""``cct-export train``."""

import logging
from pathlib import Path
from typing import Any

import click

from cct_export.bounds import Range
from cct_export.commands.options import DATA, DATASETS, Decorator, Outcome, combined, common
from cct_export.commands.types import Model, Number, OneOf, Output, PathOr
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model import presets
from cct_export.specs import ACTIVATIONS, DEFAULT_MODEL, STOCHASTIC_DEPTH_MODES
from cct_export.specs.train import DISTRIBUTIONS, LOGGERS, Hyperparameter, hyperparameters
from cct_export.text import one_line, plural
from cct_export.training import recipes
from cct_export.training.recipes import TrainOptions

log = logging.getLogger(__name__)


def _option(hyperparameter: Hyperparameter) -> Decorator:
    """Returns the option of a hyperparameter; None where it is not given."""
    flag, kind = f"--{hyperparameter.name.replace('_', '-')}", type(hyperparameter.default)
    choices = hyperparameter.choices
    number = Number(Range(whole=kind is int))  # the recipe knows the range
    return click.option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        hyperparameter.name,
        default=None,
        type=OneOf(choices) if choices else number if kind in (int, float) else kind,
        help=hyperparameter.help,
    )


@click.command()
@click.option(
    "--model",
    type=OneOf(presets.PRESETS, "PRESET"),
    help=f"Preset to train.  [default: {DEFAULT_MODEL}]",
)
@click.option("--data", type=DATA, help=f"Dataset: {DATASETS}.  [default: cifar10]")
@click.option(
    "--recipe",
    type=PathOr(recipes.RECIPES, "NAME|FILE.toml"),
    help=f"Hyperparameters: {', '.join(recipes.RECIPES)}, or a TOML file with the names of the "
    f"options below as keys.  [default: {recipes.DEFAULT}; with --from {recipes.FINE_TUNING}]",
)
@click.option(
    "--from",
    "pretrained",
    type=Model(),
    help="Fine-tune this CCT. For other classes it gets a new head, for another image size its "
    "learned positions are interpolated.",
)
@click.option(
    "--freeze",
    type=OneOf(recipes.PARTS, "PARTS"),
    help="With --from, parts that are not trained, separated by commas: tokenizer, positions, "
    "blocks (blocks:N for the first N), norm, pooling, head.",
)
@click.option(
    "--teacher",
    type=Model(),
    help="Learn the answers of this trained classifier as well as the labels. It has the same "
    "classes and image size.",
)
@click.option(
    "--image-size",
    type=Number(Range(1, 4096, whole=True)),
    metavar="PIXELS",
    help="Height and width of the images, by default the model's.",
)
@click.option(
    "--stochastic-depth-mode",
    type=OneOf(STOCHASTIC_DEPTH_MODES),
    help="Drop residual branches per sample, per sample without rescaling, or for the whole batch "
    "without computing them; by default as the model does.",
)
@click.option(
    "--activation",
    type=OneOf(ACTIVATIONS),
    help="Activation of the MLPs, by default the model's. With relu an exported file has no GELU, "
    "which chips for integers lack; with --from and another one, training starts from the same "
    "weights.",
)
@click.option("-o", "--output", type=Output(), default="runs/cct", help="Run directory.")
@click.option(
    "--log",
    "loggers",
    multiple=True,
    type=OneOf(LOGGERS),
    help="Experiment tracker to log to as well; may be repeated.",
)
@click.option("--resume", is_flag=True, help="Resume the run in the directory, with its options.")
@click.option(
    "--distribute",
    type=OneOf(DISTRIBUTIONS, "local|workers"),
    help="Distribute each batch over all devices of this machine, or over all machines that the "
    "environment names: TF_CONFIG, or on JAX KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and "
    "_PROCESS_ID. Only worker 0 writes.",
)
@combined(*map(_option, hyperparameters()))
@common
def train(
    output: Path, resume: bool, loggers: tuple[str, ...], distribute: str | None, **others: Any
) -> Outcome:
    """Train a CCT with a recipe, or fine-tune one.

    The epoch with the best accuracy on held-out training images is kept. The run directory gets
    best.keras, metrics.csv, curves.png and a model card; it is a MODEL for every other command.
    The hyperparameters, from --epochs on, default to the recipe's; with --resume all options
    default to the run's.
    """
    options = _options(others)
    if options.model is not None and options.pretrained is not None:
        raise InvalidRequest("--from brings its architecture: leave --model out")
    if resume:
        options = _resumed(options, output)
    recipe = options.train_spec()
    from cct_export import api
    from cct_export.report.terminal import STDERR, TrainingProgress, write
    from cct_export.training.run import RunDirectory

    with TrainingProgress(recipe.epochs) as progress:
        trained = api.train(
            output,
            recipe=recipe,
            model=options.model,
            pretrained=options.pretrained,
            teacher=options.teacher,
            image_size=options.image_size,
            stochastic_depth_mode=options.stochastic_depth_mode,
            activation=options.activation,
            resume=resume,
            progress=progress,
            loggers=loggers,
            distribute=distribute,
        )

    def show() -> None:
        if trained.worker:
            write(STDERR, f"worker {trained.worker}: done, worker 0 has the run directory")
            return
        images, epochs = plural(trained.samples, "test image"), plural(trained.epochs, "epoch")
        figures = f"top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%}"
        if trained.jpeg_top1 is not None:
            figures += f", top-1 as JPEG {trained.jpeg_top1:.2%}"
        write(STDERR, one_line(f"{trained.best}: {figures} on {images}, best of {epochs}"))
        written = [file.name for file in RunDirectory(output).files()] + list(loggers)
        log.info("wrote %s: %s", output, ", ".join(written))

    return Outcome(trained.to_dict(), show=show)


def _options(parameters: dict[str, Any]) -> TrainOptions:
    """Returns the options of the command line; hyperparameters only where they are given."""
    names = [hyperparameter.name for hyperparameter in hyperparameters()]
    values = {name: parameters[name] for name in names if parameters[name] is not None}
    others = {name: value for name, value in parameters.items() if name not in names}
    return TrainOptions(**others, hyperparameters=values)


def _resumed(options: TrainOptions, output: Path) -> TrainOptions:
    """Returns the options completed from a run's record, which workers other than 0 may lack.

    Raises:
        InvalidRequest: the record alone names what would be downloaded.
    """
    from cct_export.data import find_data, is_downloaded
    from cct_export.importers.location import is_hub_id
    from cct_export.training.run import RunDirectory

    run = RunDirectory(output)
    try:
        resumed = options.resume(run.record())
    except (InvalidModel, InvalidRequest):
        return options  # Training reports what is wrong with the record.
    images = resumed.data
    missing: list[str] = []
    for option, model, given in (
        ("--from", resumed.pretrained, options.pretrained),
        ("--teacher", resumed.teacher, options.teacher),
    ):
        if model is not None and given is None and is_hub_id(model):
            missing += [option, model]
    if images is not None and options.data is None and is_downloaded(images):
        missing += ["--data", find_data(images)]
    if missing:
        raise InvalidRequest.of_unnamed(run.record_file, missing)
    return resumed
