"""Loads everything that a user may write where a command takes a MODEL."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from cct_export import data
from cct_export.data import OnCorrupt
from cct_export.data.dataset import Dataset, ImageShape, check_classes
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.files import sha256
from cct_export.importers import keras_io, legacy, paper, saved_model
from cct_export.importers.functional import functional
from cct_export.importers.imported_model import ImportedModel, check_logits, check_options
from cct_export.importers.location import Location, locate
from cct_export.importers.modules import objects_of
from cct_export.importers.preprocessing import with_normalization, with_softmax
from cct_export.model import checkpoint
from cct_export.model.adapting import adapt
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import Objects
from cct_export.model.outputs import outputs_of
from cct_export.records import OutputContract
from cct_export.specs import (
    DEFAULT_RESIZE,
    NO_OPTIONS,
    SAVED_MODEL_FILE,
    ImportSpec,
    ModelOptions,
    Resize,
)
from cct_export.text import plural

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A Keras model and its source.

    Attributes:
        model: an image classifier with trained weights, see ``functional``.
        source: what the user wrote.
        sha256: checksum of the file that holds the weights.
        data: the training data of a run directory; None for other sources.
        calibration_file: path of the calibration record, which may not exist; None for sources
            without one.
        on_corrupt: what the run did with images that cannot be decoded, see ``data.read``.
        options: what the user said of the model, and the labels that it knows itself.
    """

    model: keras.Model
    source: str
    sha256: str
    data: str | None = None
    calibration_file: Path | None = None
    on_corrupt: OnCorrupt = "refuse"
    options: ModelOptions = NO_OPTIONS

    @cached_property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of the input."""
        return checkpoint.image_shape(self.model)

    @property
    def resize(self) -> Resize:
        """How images of another size are resized."""
        return self.options.resize or DEFAULT_RESIZE

    @property
    def classes(self) -> int:
        """Number of values of the first output, see ``OutputContract``."""
        return self.outputs[0].classes

    @cached_property
    def outputs(self) -> tuple[OutputContract, ...]:
        """Name, shape and activation of each output."""
        return outputs_of(self.model)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty if unknown."""
        return self.options.labels


def in_memory(model: keras.Model, options: ModelOptions = NO_OPTIONS) -> LoadedModel:
    """Returns a record of a Keras model; its checksum is that of its weights.

    Args:
        model: of any classes, built.
        options: what the user says of it; its modules are not run.

    Raises:
        InvalidModel: not an image classifier.
        InvalidRequest: the options contradict the model.
    """
    whole = functional(model, model.name)
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return _prepared(LoadedModel(whole, model.name, digest.hexdigest()), options)


def load_model(source: str, options: ModelOptions = NO_OPTIONS) -> LoadedModel:
    """Loads a MODEL.

    Args:
        source: see ``location.locate``.
        options: what the user says of it.

    Raises:
        InvalidRequest: there is no such model, or the options contradict it.
        InvalidModel: not readable, unsafe, or not an image classifier; or a module cannot be run.
        MissingDependency: a library that reads such a file is not installed.
    """
    location = locate(source)
    imported, checksum = _read(location, ImportSpec(), options)
    for note in imported.notes:
        if note.startswith((keras_io.ASSUMED, keras_io.IF_WRONG)):
            log.info("%s: %s", source, note)
    loaded = LoadedModel(
        imported.model,
        source,
        checksum,
        location.data,
        location.calibration_file,
        location.on_corrupt,
    )
    return _prepared(loaded, options)


def _prepared(loaded: LoadedModel, options: ModelOptions) -> LoadedModel:
    """Returns a model that normalizes pixels and has labels and a softmax as ``options`` say."""
    model, calibration_file = loaded.model, loaded.calibration_file
    labels, outputs = options.labels or checkpoint.labels(model), loaded.outputs
    count = outputs[0].class_count
    if labels and len(labels) != count:
        raise InvalidRequest(
            f"--labels names {plural(len(labels), 'class', 'classes')}, and {loaded.source} has "
            f"{plural(loaded.classes, 'output')}: name each of {count} classes once, in the order "
            "of the outputs"
        )
    unnamed = [output.name for output in outputs if output.class_count != count]
    if options.labels and unnamed:
        named = ", ".join(output.name for output in outputs if output.class_count == count)
        log.info(
            "%s: --labels names the %d classes of %s, and none of %s",
            loaded.source, count, named, ", ".join(unnamed),
        )  # fmt: skip
    if options.normalization is not None and not options.normalization.is_identity:
        model = with_normalization(model, options.normalization)
        calibration_file = None  # of activations without it
    if options.softmax:
        model = with_softmax(model)
    options = replace(options, labels=labels)
    return replace(loaded, model=model, calibration_file=calibration_file, options=options)


def import_checkpoint(source: str, options: ImportSpec) -> tuple[ImportedModel, str]:
    """Loads a MODEL and adapts it to ``options``.

    Args:
        source: see ``location.locate``.
        options: properties that the file lacks, or that replace those in it.

    Returns:
        The model with an account of the import, and the SHA-256 of the file with the weights.

    Raises:
        InvalidModel: not readable, unsafe, of another architecture, or its logits are not finite.
        InvalidRequest: there is no such model, it cannot be adapted to the options, or an option
            has no effect.
        MissingDependency: a library that reads such a file is not installed.
    """
    imported, checksum = _read(locate(source), options)
    if imported.kind == saved_model.KIND:
        raise InvalidModel(
            f"{source} is no CCT of the keras.io example, and Keras cannot save another program: "
            f"export it as it is, with cct-export tflite {source}"
        )
    imported = _adapted(imported, options, source)
    notes = check_logits(imported.model, source)
    return replace(imported, notes=(*imported.notes, *notes)), checksum


def open_dataset(loaded: LoadedModel, data_name: str | None) -> Dataset | None:
    """Returns the data for calibration and parity.

    Args:
        loaded: the model; a run directory names its training data.
        data_name: the value of ``--data``, None if missing.

    Returns:
        The dataset; None if none was named and the training data is not available.

    Raises:
        InvalidData: the data was named and cannot be used.
    """
    shape, resize = loaded.image_shape, loaded.resize
    if data_name is not None:
        dataset = data.read(data_name, shape, resize=resize)
    elif loaded.data is not None and data.is_available(loaded.data):
        dataset = data.read(loaded.data, shape, loaded.on_corrupt, resize)
    else:
        return None
    check_classes(dataset, loaded.labels)
    return dataset


def _load_keras(path: Path, options: ImportSpec, objects: Objects) -> ImportedModel:
    """Reads a ``.keras`` file of this package, of Keras' own layers, or of the keras.io example."""
    is_keras2 = legacy.is_keras2(path)
    if keras_io.is_example(path) and not (objects or is_keras2):
        return keras_io.load_archive(path, options)
    load = legacy.load_archive if is_keras2 else checkpoint.load
    return _whole(path, options, ".keras file", load(path, objects))


def _load_hdf5(path: Path, options: ImportSpec, objects: Objects) -> ImportedModel:
    """Reads a whole model from an ``.h5`` file."""
    return _whole(path, options, ".h5 file", legacy.load_hdf5(path, objects))


def _whole(path: Path, options: ImportSpec, kind: str, model: keras.Model) -> ImportedModel:
    """Returns the record of a file that holds architecture and weights."""
    reason = "its configuration contains it"
    check_options(path, options, heads=reason, gelu=reason)
    return ImportedModel(model, kind, len(model.weights), model.count_params())


Reader = Callable[[Path, ImportSpec, Objects], ImportedModel]


def _without_code(load: Callable[[Path, ImportSpec], ImportedModel]) -> Reader:
    """Returns a reader of files that name no layers: the user's own have no effect."""
    return lambda path, options, objects: load(path, options)


# What reads each kind of MODEL, except weights alone, which need to know of the pixels.
READERS: dict[str, Reader] = {
    "SavedModel": _without_code(saved_model.load),
    ".h5": _load_hdf5,
    ".keras": _load_keras,
    "state dict": _without_code(paper.load),
}


def _read(
    location: Location, spec: ImportSpec, options: ModelOptions = NO_OPTIONS
) -> tuple[ImportedModel, str]:
    """Returns the model at a location and the SHA-256 of the file with its weights."""
    objects = objects_of(options.modules)
    if location.kind == ".weights.h5":  # a normalization takes the place of the assumed one
        scaled = options.normalization is not None
        imported = keras_io.load_weights(location.path, spec, scaled=scaled)
    else:
        imported = READERS[location.kind](location.path, spec, objects)
    model = functional(imported.model, str(location.path))
    return replace(imported, model=model), _checksum(location.path)


def _adapted(imported: ImportedModel, options: ImportSpec, source: str) -> ImportedModel:
    """Returns ``imported`` adapted to ``options``; raises ``InvalidRequest``."""
    if not (options.image_size or options.classes or options.normalize or options.labels):
        return imported
    if not isinstance(imported.model, CCT):
        raise InvalidRequest(f"{source} is not a CCT: nothing of it can be changed")
    model, notes = adapt(imported.model, options)
    return replace(imported, model=model, notes=(*imported.notes, *notes))


def _checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the graph and the weights of a SavedModel."""
    if path.is_file():
        return sha256(path)
    files = sorted([path / SAVED_MODEL_FILE, *(path / "variables").glob("variables.*")])
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
