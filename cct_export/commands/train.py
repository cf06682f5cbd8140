"""``cct-export train``."""

from pathlib import Path
from typing import Any

import click

from cct_export.commands.options import DATASETS, Outcome, common, start_keras
from cct_export.specs import DEFAULT_MODEL, STOCHASTIC_DEPTH_MODES, TrainSpec
from cct_export.specs.train import LOGS, knobs
from cct_export.training import recipes
from cct_export.training.resuming import fill_in

_ARCHITECTURE = ("model", "start", "image_size", "stochastic_depth_mode")


def _knobs(function: Any) -> Any:
    """Adds an option for every knob of a recipe; None where it is not given."""
    for knob in reversed(knobs()):
        flag, kind = f"--{knob.name.replace('_', '-')}", type(knob.default)
        choices = knob.metadata["choices"]
        if kind is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        function = click.option(
            flag,
            knob.name,
            default=None,
            type=click.Choice(choices) if choices else kind,
            help=knob.metadata["help"],
        )(function)
    return function


@click.command()
@click.option("--model", help=f"Preset to train.  [default: {DEFAULT_MODEL}]")
@click.option(
    "--data",
    help=f"Dataset: {DATASETS}.  [default: cifar10]",
)
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    help=f"{', '.join(recipes.RECIPES)}, or a TOML file with the names of the options below as its "
    f"keys.  [default: {recipes.DEFAULT}; with --from finetune]",
)
@click.option(
    "--from",
    "start",
    metavar="MODEL",
    help="Fine-tune this CCT instead: for other classes it gets a new head, for another image size "
    "its learned positions are interpolated.",
)
@click.option(
    "--freeze",
    metavar="PARTS",
    help="With --from, what stays as it is, with commas between: tokenizer, positions, blocks "
    "(blocks:N are the first N), norm, pooling, head.",
)
@click.option(
    "--image-size",
    type=click.IntRange(1, 4096),
    metavar="PIXELS",
    help="Height and width of the images, by default the model's.",
)
@click.option(
    "--stochastic-depth-mode",
    type=click.Choice(STOCHASTIC_DEPTH_MODES),
    help="What is dropped at once, by default as the model has it: a residual branch for each "
    "sample by itself, the same without scaling up what is kept, or for the whole batch, then not "
    "computed.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="runs/cct", help="Run directory."
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Choice(LOGS),
    help="Log the course there too; may be repeated.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run in the directory, with its options."
)
@click.option(
    "--distribute",
    metavar="local|workers",
    help="Share each batch by all devices of this machine, or by all machines that the environment "
    "names: TF_CONFIG, or on JAX KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID. "
    "Worker 0 alone writes.",
)
@_knobs
@common
def train(
    output: Path,
    resume: bool,
    logs: tuple[str, ...],
    distribute: str | None,
    **said: Any,
) -> Outcome:
    """Train a CCT by a recipe, or fine-tune one.

    The best of all epochs by accuracy on held-out training images is kept. The run directory gets
    best.keras, metrics.csv, curves.png and a model card; it is a MODEL for every other command.
    The options from --epochs on are the recipe's, where they are not given; with --resume all
    options are the run's.
    """
    if said["model"] is not None and said["start"] is not None:
        raise click.UsageError("--from brings its architecture: leave --model out")
    if resume:
        said = fill_in(output, said)
    architecture = {name: said.pop(name) for name in _ARCHITECTURE}
    resolved = _resolved(architecture["start"] is not None, **said)
    start_keras()
    from cct_export import api
    from cct_export.report.terminal import TrainingProgress

    with TrainingProgress(resolved.epochs) as progress:
        trained = api.train(
            output,
            recipe=resolved,
            resume=resume,
            progress=progress,
            logs=logs,
            distribute=distribute,
            **architecture,
        )
    if trained.worker:
        click.echo(f"worker {trained.worker}: done, the run is with worker 0", err=True)
        return Outcome(trained.to_dict())
    click.echo(
        f"{trained.best}: top-1 {trained.top1:.2%}, top-5 {trained.top5:.2%} "
        f"on {trained.samples:,} test images, best of {trained.epochs} epochs",
        err=True,
    )
    return Outcome(trained.to_dict())


def _resolved(
    tuning: bool,
    recipe: str | None,
    data: str | None,
    freeze: str | None,
    recorded: str | None = None,
    **said: Any,
) -> TrainSpec:
    """Returns the recipe with the knobs that were said, by the name that a run recorded for it."""
    overrides = {name: value for name, value in said.items() if value is not None}
    overrides |= {} if recorded is None else {"recipe": recorded}
    overrides["freeze"] = _parts(freeze)
    named = recipe or ("finetune" if tuning else recipes.DEFAULT)
    return recipes.resolve(named, data or "cifar10", overrides)


def _parts(text: str | None) -> tuple[str, ...]:
    """Returns the words between the commas; where there are none, the text, which is no part."""
    if text is None:
        return ()
    return tuple(word.strip() for word in text.split(",") if word.strip()) or (text,)
