"""Models to load and to train."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.errors import InvalidRequest
from cct_export.specs import DEFAULT_MODEL, ImportSpec, ModelSpec, TrainSpec

if TYPE_CHECKING:
    from typing import TypeAlias

    import keras

    from cct_export.importers import LoadedModel
    from cct_export.records import Imported
    from cct_export.training.loop import Trained
    from cct_export.training.transfer import Start

    Source: TypeAlias = str | Path | keras.Model | LoadedModel

CALIBRATION_SAMPLES = 200
PARITY_SAMPLES = 1000


def _ignore(epoch: int, step: int, steps: int, metrics: dict[str, float]) -> None:
    """Default progress: none."""


def load(source: "Source" = DEFAULT_MODEL) -> "LoadedModel":
    """Loads a model.

    Args:
        source: a preset with shipped weights, a ``.keras`` file, a run directory, a Keras model
            in memory, or anything that ``import_model`` takes.

    Returns:
        The Keras model (``.model``) and where it is from.

    Raises:
        InvalidModel: not readable, unsafe, or no image classifier.
    """
    from cct_export.importers import LoadedModel, in_memory, load_model

    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, str | Path):
        return load_model(str(source))
    return in_memory(source)


def import_model(
    source: str | Path,
    output: str | Path | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    heads: int | None = None,
    normalize: str | None = None,
    gelu: str | None = None,
    labels: Sequence[str] = (),
) -> "Imported":
    """Writes a ``.keras`` file of a CCT that other code saved.

    Args:
        source: a PyTorch state dict of the paper's code or vit-pytorch's (``.pth``, ``.pt``,
            ``.bin``, ``.ckpt``, ``.safetensors``); of the keras.io example a ``.weights.h5``, a
            ``.keras`` file, a SavedModel of Keras 2, or such a repository of the Hugging Face Hub
            (``hf:OWNER/NAME``, ``keras-io/NAME``).
        output: file to write; by default named after the source, in the working directory.
        image_size: height and width in pixels; positions are interpolated to it.
        classes: number of logits; where it differs from the source's, the classifier begins anew.
        heads: attention heads per block, where they are not 64 channels wide.
        normalize: ``cifar10``, ``cifar100``, ``imagenet`` or ``none``; by default what the paper's
            code does for such a model.
        gelu: ``tanh`` or ``exact``, where the file of a Keras model does not tell.
        labels: names of the classes, no two alike.

    Returns:
        What was imported: every tensor of the source was used, none is missing.

    Raises:
        InvalidModel: not readable, unsafe, of another architecture, or its logits are not finite.
        InvalidRequest: the options do not fit together or not to the model, or one does nothing.
        MissingDependency: a library that reads the source is not installed.
        OutputError: the file cannot be written.
    """
    from cct_export.files import check_writable, sha256
    from cct_export.importers import load_foreign
    from cct_export.model import checkpoint
    from cct_export.records import Imported

    path = Path(output or f"{stem_of(str(source))}.keras")
    if path.suffix != ".keras":
        raise InvalidRequest(f"{path} does not end in .keras: that is what is written")
    if _is_source(path, Path(source).expanduser()):
        raise InvalidRequest(f"{path} is what is imported: name another file with output")
    check_writable(path)
    try:
        options = ImportSpec(image_size, classes, heads, normalize, gelu, tuple(labels))
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    found, checksum = load_foreign(str(source), options)
    checkpoint.check_classifier(found.model, str(source))
    checkpoint.save(found.model, path)
    return Imported(
        path=path,
        source=str(source),
        source_sha256=checksum,
        kind=found.kind,
        name=found.model.name,
        image_shape=checkpoint.image_shape(found.model),
        classes=found.model.output_shape[-1],
        tensors=found.tensors,
        parameters=found.parameters,
        notes=found.notes,
        difference=found.difference,
        images=found.images,
        size_bytes=path.stat().st_size,
        sha256=sha256(path),
    )


def _is_source(path: Path, source: Path) -> bool:
    """Tells whether ``path`` is the file that holds the weights of ``source``."""
    from cct_export.training.run import RunDirectory

    held = RunDirectory(source).best_file if source.is_dir() else source
    return path.exists() and held.exists() and path.samefile(held)


def stem_of(source: str) -> str:
    """Returns what a file made of ``source`` is called, without its suffix."""
    name = Path(source).name
    if name in ("", ".."):  # of the working directory, or the one above it
        name = Path(source).resolve().name
    for suffix in (".weights.h5", ".keras", ".safetensors", ".pth", ".pt", ".bin", ".ckpt"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def recipe(name: str = "keras-io", data: str = "cifar10", **knobs: Any) -> TrainSpec:
    """Fills in how to train.

    Args:
        name: ``keras-io``, ``paper``, ``short`` or ``finetune``, or a TOML file.
        data: ``cifar10``, ``cifar100``, ``digits``, a folder, TFRecord shards or an ``.npz`` file.
        **knobs: fields of ``TrainSpec`` that are to be other than the recipe has them.

    Returns:
        The recipe, for ``train``.

    Raises:
        InvalidRequest: no such recipe or knob, or a value that cannot be.
    """
    from cct_export.training.recipes import resolve

    return resolve(name, data, knobs)


def train(
    folder: str | Path,
    recipe: TrainSpec,
    model: str | ModelSpec | None = None,
    resume: bool = False,
    progress: Callable[[int, int, int, dict[str, float]], None] = _ignore,
    start: "Source | None" = None,
    image_size: int | None = None,
    stochastic_depth_mode: str | None = None,
    logs: Sequence[str] = (),
    distribute: str | None = None,
) -> "Trained":
    """Trains a CCT into the run directory ``folder``.

    Args:
        folder: run directory, made if missing.
        recipe: how, see ``cct_export.recipe``.
        model: name of a preset, by default ``cct_2_3x2_32``, or an architecture.
        resume: go on with the run that is in ``folder``.
        progress: called with epoch, step (0 at the end of an epoch), steps of an epoch, metrics.
        start: fine-tune this CCT in place of training ``model`` from random weights, see ``load``.
            For other classes it gets a new head, for another image size its learned positions are
            interpolated.
        image_size: height and width of the images, by default the model's.
        stochastic_depth_mode: ``sample``, ``sample-unscaled`` or ``batch``, by default the model's.
        logs: where else the course is logged: ``tensorboard``, ``wandb``.
        distribute: share each batch by all devices of this machine (``local``), or of all machines
            that the environment names (``workers``); each of those calls this function, before it
            computes anything, and worker 0 alone writes ``folder``.

    Returns:
        The best weights' file and accuracy.

    Raises:
        InvalidModel: unknown preset; ``start`` is no CCT; too small an image.
        InvalidData: the data cannot be used.
        InvalidRequest: the recipe cannot be followed, or ``model`` and ``start`` are both given.
        CCTExportError: the folder holds another run, or another worker was lost.
        OutputError: the folder cannot be written.
    """
    from cct_export.training import distribution, loop, transfer

    if model is not None and start is not None:
        raise InvalidRequest("a checkpoint brings its architecture: give either a model or a start")
    transfer.check_parts(recipe.freeze)
    with distribution.begun(distribute) as together:
        begun = None if start is None else _start(start)
        spec = _architecture(model or DEFAULT_MODEL) if begun is None else begun.model.spec
        spec = transfer.architecture(spec, image_size, stochastic_depth_mode)
        trained = loop.train(spec, recipe, Path(folder), resume, progress, begun, together, logs)
    if not trained.worker:
        _keep_statistics(str(folder), recipe)
    return trained


def _keep_statistics(folder: str, recipe: TrainSpec) -> None:
    """Writes what an export needs to know of the training images into a run directory."""
    from cct_export import data
    from cct_export.export import draft
    from cct_export.model.checkpoint import image_shape

    loaded = load(folder)
    if loaded.calibration is not None:
        dataset = data.read(recipe.data, image_shape(loaded.model), recipe.on_corrupt)
        draft.record(loaded, dataset, CALIBRATION_SAMPLES, loaded.calibration)


def _architecture(model: str | ModelSpec) -> ModelSpec:
    from cct_export.model.presets import preset

    return preset(model) if isinstance(model, str) else model


def _start(source: "Source") -> "Start":
    from cct_export.importers.lookalike import recognize
    from cct_export.model.cct import CCT
    from cct_export.training.transfer import Start

    loaded = load(source)
    own = loaded.model if type(loaded.model) is CCT else recognize(loaded.model)
    return Start.of(own or loaded.model, loaded.source, loaded.sha256)
