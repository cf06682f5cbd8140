"""Models: loading, importing, inspecting and training them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.request import (
    check_model,
    check_not_read,
    check_options,
    check_recipe,
    check_run_folder,
)
from cct_export.errors import InvalidRequest
from cct_export.model import start
from cct_export.names import choose, find
from cct_export.specs import (
    ACTIVATIONS,
    CALIBRATION_SAMPLES,
    DEFAULT_MODEL,
    GELUS,
    NO_OPTIONS,
    NORMALIZATIONS,
    STOCHASTIC_DEPTH_MODES,
    ImportSpec,
    ModelOptions,
    ModelSpec,
    TrainSpec,
)
from cct_export.specs.progress import StatusProgress, StepProgress, no_progress
from cct_export.specs.train import DISTRIBUTIONS, LOGGERS

if TYPE_CHECKING:
    from typing import TypeAlias

    import keras

    from cct_export.data.dataset import Dataset
    from cct_export.importers.source import LoadedModel
    from cct_export.records import Architecture, Imported
    from cct_export.specs.train import Value
    from cct_export.training.loop import Trained
    from cct_export.training.teacher import Teacher
    from cct_export.training.transfer import Pretrained

    Source: TypeAlias = str | Path | keras.Model | LoadedModel

# Of files with a model, the longer one of two that fit first.
_SUFFIXES = (
    ".weights.h5", ".h5", ".hdf5", ".keras", ".safetensors", ".pth", ".pt", ".bin", ".ckpt",
)  # fmt: skip


def load(
    source: "Source" = DEFAULT_MODEL,
    *,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "LoadedModel":
    """Loads a model.

    Args:
        source: a preset with shipped weights, a ``.keras`` file, a run directory, a Keras model
            in memory, or anything that ``import_model`` takes.
        options: what its file does not say, see ``specs.ModelOptions``: how pixels were normalized,
            the names of its classes. With any of them, the model that is returned takes raw
            pixels, 0–255. Refused for a model that is loaded already.
        progress: called with what runs now.

    Returns:
        The Keras model (``.model``), its input and classes, and where it is from.

    Raises:
        InvalidRequest: there is no such model, or the options contradict it.
        InvalidModel: not readable, unsafe, or no image classifier.

    Example:
        >>> cct_export.load("cct_2_3x2_32").image_shape
        (32, 32, 3)
        >>> bgr = Normalization(channels="bgr", mean=(103.939, 116.779, 123.68))
        >>> cct_export.load("resnet50.keras", options=ModelOptions(normalization=bgr))
    """
    check_model(source)
    check_options(options)
    progress("starting Keras")
    start()
    from cct_export.importers.source import LoadedModel, in_memory, load_model

    progress("loading the model")
    if isinstance(source, LoadedModel):
        if options != NO_OPTIONS:
            raise InvalidRequest(f"{source.source} is loaded already: give the options to load")
        return source
    if isinstance(source, str | Path):
        return load_model(str(source), options)
    return in_memory(source, options)


def inspect_model(model: "Source", *, options: ModelOptions = NO_OPTIONS) -> "Architecture":
    """Lists the layers of a model; a preset need not have weights.

    Args:
        model: name of any preset, or a model, see ``load``.
        options: see ``load``.

    Returns:
        Its layers with output shapes and parameters; of a CCT also multiply-accumulates per image,
        and of all whose steps are known the cost of the exported file.

    Raises:
        InvalidRequest: there is no such preset or model.
        InvalidModel: not readable, unsafe, or no image classifier.

    Example:
        >>> cct_export.inspect_model("cct_7_3x1_32").trainable
        3760139
    """
    from cct_export.inspection import model as inspection
    from cct_export.model.presets import preset

    if isinstance(model, str) and _is_architecture(model):
        return inspection.inspect_architecture(preset(model))
    loaded = load(model, options=options)
    return inspection.inspect(loaded.model, name=loaded.source)


def _is_architecture(model: str) -> bool:
    """Whether a word can only be the name of a preset: no path, and no name of weights alone."""
    from cct_export.model.presets import EXAMPLE_WEIGHTS, PRESETS

    is_path = model != Path(model).stem or Path(model).exists()
    return model in PRESETS or not (is_path or find(model, [EXAMPLE_WEIGHTS]))


def import_model(
    source: str | Path,
    *,
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
        classes: number of logits; where it differs from the source's, the head is reinitialized.
        heads: attention heads per block, where they are not 64 channels wide.
        normalize: ``cifar10``, ``cifar100``, ``imagenet`` or ``none``; by default what the paper's
            code does for such a model.
        gelu: ``tanh`` or ``exact``, where the file of a Keras model does not tell.
        labels: names of the classes, no two alike.

    Returns:
        What was imported: every tensor of the source was used, none is missing.

    Raises:
        InvalidModel: not readable, unsafe, of another architecture, or its logits are not finite.
        InvalidRequest: there is no such source, the options contradict each other or the model, or
            one has no effect.
        MissingDependency: a library that reads the source is not installed.
        OutputError: the file cannot be written.

    Example:
        >>> imported = cct_export.import_model("cct_7_3x1_32.safetensors", output="cct.keras")
        >>> imported.notes
    """
    from cct_export.files import check_writable, replacing, sha256
    from cct_export.records import Imported

    if normalize is not None:
        normalize = choose(normalize, NORMALIZATIONS, what="normalization")
    if gelu is not None:
        gelu = choose(gelu, GELUS, what="GELU")
    try:
        options = ImportSpec(image_size, classes, heads, normalize, gelu, tuple(labels))
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    check_model(source)
    path = Path(output or f"{stem_of(str(source))}.keras")
    if path.suffix != ".keras":
        raise InvalidRequest(f"{path} does not end in .keras: that is what is written")
    check_not_read(path, source, "imported")
    check_writable(path)
    start()
    from cct_export.importers.source import import_checkpoint
    from cct_export.model import checkpoint

    imported, checksum = import_checkpoint(str(source), options)
    with replacing(path) as temporary:
        checkpoint.save(imported.model, temporary)
        size_bytes, written = temporary.stat().st_size, sha256(temporary)
    return Imported(
        path=path,
        source=str(source),
        source_sha256=checksum,
        kind=imported.kind,
        name=imported.model.name,
        image_shape=checkpoint.image_shape(imported.model),
        classes=imported.model.output_shape[-1],
        tensors=imported.tensors,
        parameters=imported.parameters,
        notes=imported.notes,
        difference=imported.difference,
        images=imported.images,
        size_bytes=size_bytes,
        sha256=written,
    )


def stem_of(source: str) -> str:
    """Returns the name of a file made of ``source``, without its suffix."""
    name = Path(source).name
    if name in ("", ".."):  # of the working directory, or the one above it
        name = Path(source).resolve().name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def recipe(
    name: str = "keras-io", *, data: str = "cifar10", **hyperparameters: "Value | tuple[str, ...]"
) -> TrainSpec:
    """Returns the hyperparameters of a training run.

    Args:
        name: ``keras-io``, ``paper``, ``short`` or ``finetune``, or a TOML file.
        data: ``cifar10``, ``cifar100``, ``digits``, a folder, TFRecord shards or an ``.npz`` file.
        **hyperparameters: fields of ``TrainSpec`` that differ from the recipe's.

    Returns:
        The recipe, for ``train``.

    Raises:
        InvalidRequest: unknown recipe or hyperparameter, or a value out of its range.

    Example:
        >>> cct_export.recipe("short", data="photos/", epochs=60, mixup=0.2)
    """
    from cct_export.training.recipes import resolve

    return resolve(name, data, hyperparameters)


def train(
    folder: str | Path,
    *,
    recipe: TrainSpec,
    model: str | ModelSpec | None = None,
    resume: bool = False,
    progress: StepProgress = no_progress,
    pretrained: "Source | None" = None,
    image_size: int | None = None,
    stochastic_depth_mode: str | None = None,
    activation: str | None = None,
    loggers: Sequence[str] = (),
    distribute: str | None = None,
    teacher: "Source | None" = None,
) -> "Trained":
    """Trains a CCT into the run directory ``folder``.

    Args:
        folder: run directory, made if missing.
        recipe: data and hyperparameters, see ``cct_export.recipe``.
        model: name of a preset, by default ``cct_2_3x2_32``, or an architecture.
        resume: resume the run in ``folder``.
        progress: called with epoch, step (0 at the end of an epoch), steps of an epoch, metrics.
        pretrained: fine-tune this CCT in place of training ``model`` from random weights, see
            ``load``. For other classes it gets a new head, for another image size its learned
            positions are interpolated.
        image_size: height and width of the images, by default the model's.
        stochastic_depth_mode: ``sample``, ``sample-unscaled`` or ``batch``, by default the model's.
        activation: of the MLPs, ``gelu`` or ``relu``, by default the model's.
        loggers: experiment trackers to log to: ``tensorboard``, ``wandb``.
        distribute: distribute each batch over all devices of this machine (``local``), or of all
            machines that the environment names (``workers``); each of those calls this function
            before it computes anything, and only worker 0 writes ``folder``.
        teacher: a CCT or other Keras classifier of the same classes and image size, see ``load``,
            whose answers are learned besides the labels. With ``recipe.quantize``, by default
            ``pretrained``.

    Returns:
        The best weights' file and accuracy.

    Raises:
        InvalidModel: ``pretrained`` is no CCT; the images are too small; ``teacher`` cannot be
            copied, or gives NaN.
        InvalidData: the data cannot be used.
        InvalidRequest: no such preset, model or data; the recipe cannot be trained, both
            ``model`` and ``pretrained`` are given, ``recipe.quantize`` without ``pretrained``, or
            ``teacher`` has other classes or images.
        CCTExportError: the folder holds another run, or another worker was lost.
        OutputError: the folder cannot be written.

    Example:
        >>> short = cct_export.recipe("short", data="photos/", epochs=40)
        >>> cct_export.train("runs/photos", recipe=short, pretrained="cct_2_3x2_32").top1
    """
    if model is not None and pretrained is not None:
        raise InvalidRequest("pretrained brings its architecture: leave model out")
    architecture = _architecture(model or DEFAULT_MODEL)
    if stochastic_depth_mode is not None:
        stochastic_depth_mode = choose(
            stochastic_depth_mode, STOCHASTIC_DEPTH_MODES, what="mode of stochastic depth"
        )
    if activation is not None:
        activation = choose(activation, ACTIVATIONS, what="activation")
    if distribute is not None:
        distribute = choose(distribute, DISTRIBUTIONS, what="distribution")
    loggers = [choose(name, LOGGERS, what="log") for name in loggers]
    if teacher is None and recipe.quantize != "none":
        teacher = pretrained
    check_recipe(recipe, pretrained, teacher)
    if distribute != "workers":  # worker 0 alone may have the folder
        check_run_folder(Path(folder), resume)
    start()
    from cct_export.training import loop, transfer
    from cct_export.training.distribution import distributed

    with distributed(distribute) as distribution:
        base = None if pretrained is None else _pretrained(pretrained)
        spec = architecture if base is None else base.model.spec
        spec = transfer.architecture(
            spec,
            image_size=image_size,
            stochastic_depth_mode=stochastic_depth_mode,
            activation=activation,
        )
        instructor = None if teacher is None else _teacher(teacher)
        job = loop.TrainingJob(spec, recipe, Path(folder), resume, base, tuple(loggers), instructor)
        trained = loop.train(job, progress, distribution)
    if not trained.worker:
        _write_calibration_record(str(folder), job.dataset)
    return trained


def _write_calibration_record(folder: str, dataset: "Dataset") -> None:
    """Writes the calibration record of a run, so that an export needs no images."""
    from cct_export.export.workspace import write_calibration_record

    loaded = load(folder)
    if loaded.calibration_file is not None:
        write_calibration_record(
            loaded, dataset, samples=CALIBRATION_SAMPLES, path=loaded.calibration_file
        )


def _architecture(model: str | ModelSpec) -> ModelSpec:
    from cct_export.model.presets import preset

    return preset(model) if isinstance(model, str) else model


def _pretrained(source: "Source") -> "Pretrained":
    from cct_export.importers.equivalence import equivalent_cct
    from cct_export.model.cct import CCT
    from cct_export.training.transfer import Pretrained

    loaded = load(source)
    cct = loaded.model if type(loaded.model) is CCT else equivalent_cct(loaded.model)
    return Pretrained.of(cct or loaded.model, loaded.source, loaded.sha256)


def _teacher(source: "Source") -> "Teacher":
    from cct_export.training.run import WeightsSource
    from cct_export.training.teacher import Teacher

    loaded = load(source)
    origin = WeightsSource(loaded.source, loaded.sha256)
    return Teacher(loaded.model, origin, loaded.labels)
