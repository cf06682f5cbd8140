"""Everything that a user may write where a command takes a MODEL."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from cct_export import data
from cct_export.data import OnCorrupt
from cct_export.data.dataset import Dataset, ImageShape, check_classes
from cct_export.errors import InvalidModel, InvalidRequest, MissingDependency
from cct_export.files import sha256
from cct_export.importers import keras_io, paper, saved_model, state_dict
from cct_export.importers.imported_model import ImportedModel, check_logits, check_options
from cct_export.model import checkpoint, presets
from cct_export.model.adapting import adapt
from cct_export.model.cct import CCT
from cct_export.specs import SAVED_MODEL_FILE, ImportSpec
from cct_export.training.run import RunDirectory

HUB_TIMEOUT_S = 10
_HUB_ID = re.compile(r"(?:hf:(\w[\w.-]*/\w[\w.-]*)|(keras-io/\w[\w.-]*))")
# The calibration record of a run that was pushed to the Hub.
_HUB_CALIBRATION = "calibration.npz"
# Nothing else of a repository (images, notes, Python code) is downloaded.
_HUB_SAVED_MODEL = (SAVED_MODEL_FILE, "variables/*")
_HUB_WEIGHTS = ("*.keras", "*.weights.h5", "*.safetensors", "*.pth", "*.pt", "*.bin")


@dataclass(frozen=True)
class LoadedModel:
    """A Keras model and its source.

    Attributes:
        model: an image classifier with trained weights.
        source: what the user wrote.
        sha256: checksum of the file that holds the weights.
        data: the training data of a run directory; None for other sources.
        calibration_file: path of the calibration record, which may not exist; None for sources
            without one.
        on_corrupt: what the run did with images that cannot be decoded, see ``data.read``.
    """

    model: keras.Model
    source: str
    sha256: str
    data: str | None = None
    calibration_file: Path | None = None
    on_corrupt: OnCorrupt = "refuse"

    @cached_property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of the input."""
        return checkpoint.image_shape(self.model)

    @property
    def classes(self) -> int:
        """Number of logits."""
        return int(self.model.outputs[0].shape[1])

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty if unknown."""
        return checkpoint.labels(self.model)


def in_memory(model: keras.Model) -> LoadedModel:
    """Returns a record of a Keras model; its checksum is that of its weights.

    Raises:
        InvalidModel: not an image classifier.
    """
    checkpoint.check_classifier(model, model.name)
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return LoadedModel(model, model.name, digest.hexdigest())


def load_model(source: str) -> LoadedModel:
    """Loads a MODEL.

    Args:
        source: a preset with weights, a run directory, a file or folder that one of ``READERS``
            accepts, or a repository of the Hub.

    Raises:
        InvalidModel: missing, not readable, unsafe, or not an image classifier.
        MissingDependency: a library that reads such a file is not installed.
    """
    location = _locate(source)
    imported, checksum = _read(location.path, source, ImportSpec())
    return LoadedModel(
        imported.model,
        source,
        checksum,
        location.data,
        location.calibration_file,
        location.on_corrupt,
    )


def import_checkpoint(source: str, options: ImportSpec) -> tuple[ImportedModel, str]:
    """Loads a MODEL and adapts it to ``options``.

    Args:
        source: see ``load_model``.
        options: properties that the file lacks, or that replace those in it.

    Returns:
        The model with an account of the import, and the SHA-256 of the file with the weights.

    Raises:
        InvalidModel: missing, not readable, unsafe, of another architecture, or its logits are not
            finite.
        InvalidRequest: the model cannot be adapted to the options, or an option has no effect.
        MissingDependency: a library that reads such a file is not installed.
    """
    imported, checksum = _read(_locate(source).path, source, options)
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
    shape = loaded.image_shape
    if data_name is not None:
        dataset = data.read(data_name, shape)
    elif loaded.data is not None and data.is_available(loaded.data):
        dataset = data.read(loaded.data, shape, loaded.on_corrupt)
    else:
        return None
    check_classes(dataset, loaded.labels)
    return dataset


def _load_keras(path: Path, options: ImportSpec) -> ImportedModel:
    """Reads a ``.keras`` file of this package, of Keras' own layers, or of the keras.io example."""
    if keras_io.is_example(path):
        return keras_io.load_archive(path, options)
    reason = "its configuration contains it"
    check_options(path, options, heads=reason, gelu=reason)
    model = checkpoint.load(path)
    return ImportedModel(model, ".keras file", len(model.weights), model.count_params())


@dataclass(frozen=True)
class Reader:
    """One kind of MODEL.

    Attributes:
        accepts: tells whether a path is of this kind.
        load: returns the model at the path.
    """

    accepts: Callable[[Path], bool]
    load: Callable[[Path, ImportSpec], ImportedModel]


def _has_suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.name.lower().endswith(suffixes) and not path.is_dir()


# The first that accepts a path reads it.
READERS = (
    Reader(lambda path: (path / SAVED_MODEL_FILE).is_file(), saved_model.load),
    Reader(_has_suffix(".weights.h5"), keras_io.load_weights),
    Reader(_has_suffix(".keras"), _load_keras),
    Reader(_has_suffix(*state_dict.SAFETENSORS, *state_dict.PICKLES), paper.load),
)


def _read(path: Path, source: str, options: ImportSpec) -> tuple[ImportedModel, str]:
    """Returns the model at ``path`` and the SHA-256 of the file with its weights."""
    for reader in READERS:
        if reader.accepts(path):
            return reader.load(path, options), _checksum(path)
    if path.exists():
        raise InvalidModel(f"{source} is not a model that can be read: MODEL is {_model_kinds()}")
    if path.suffix:
        raise InvalidModel(f"no such model file: {source}")
    raise InvalidModel(
        f"there is no file, run directory or preset called {source}: MODEL is {_model_kinds()}"
    )


def _model_kinds() -> str:
    """Returns everything that MODEL may be, for messages."""
    shipped = ", ".join(name for name in presets.PRESETS if presets.ships(name))
    return (
        f"a .keras or .weights.h5 file, a run directory, a preset with weights ({shipped}), a "
        "PyTorch state dict (.pth, .safetensors), a folder with a SavedModel, or hf:OWNER/NAME"
    )


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


@dataclass(frozen=True)
class _Location:
    """Where the weights of a MODEL are, and how they were trained if that is recorded."""

    path: Path
    data: str | None = None
    calibration_file: Path | None = None
    on_corrupt: OnCorrupt = "refuse"


def _locate(source: str) -> _Location:
    path = Path(source).expanduser()
    if source in presets.PRESETS:  # a folder of that name is ./NAME
        path = presets.shipped_checkpoint(source)
        return _Location(path, calibration_file=path.with_suffix(".calibration.npz"))
    if not source:
        raise InvalidModel("the name of the model is empty")
    if is_hub_id(source):
        path = fetch_from_hub(source)
        record = path.with_name(_HUB_CALIBRATION) if path.is_file() else None
        return _Location(path, calibration_file=record)
    if path.is_dir() and not (path / SAVED_MODEL_FILE).is_file():
        return _locate_in_run(RunDirectory(path), source)
    return _Location(path)


def _locate_in_run(run: RunDirectory, source: str) -> _Location:
    recipe = run.record().train
    if not run.best_file.is_file():
        name = run.best_file.name
        raise InvalidModel(f"{source} holds no finished epoch yet: no {name} in it")
    return _Location(run.best_file, recipe.data, run.calibration_file, recipe.on_corrupt)


def is_hub_id(source: str) -> bool:
    """Tells whether ``source`` names a repository of the Hub and not an existing path."""
    return bool(_HUB_ID.fullmatch(source)) and not Path(source).exists()


def fetch_from_hub(source: str) -> Path:
    """Returns the SavedModel's folder, or the file of weights, of a repository.

    If the Hub cannot be reached, its local cache is used.

    Args:
        source: see ``is_hub_id``.

    Raises:
        InvalidModel: no such repository, no network, or it holds no or several models.
        MissingDependency: huggingface_hub is not installed.
    """
    match = _HUB_ID.fullmatch(source)
    assert match is not None
    name = match[1] or match[2]
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependency.of("huggingface_hub", "hub") from error
    patterns = [*_HUB_SAVED_MODEL, *_HUB_WEIGHTS, _HUB_CALIBRATION]
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S))
    # The library raises its own errors, those of its HTTP client, and the system's.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidModel(f"{name} could not be fetched from the Hub: {reason}") from error
    if (folder / SAVED_MODEL_FILE).is_file():
        return folder
    files = [path for pattern in _HUB_WEIGHTS for path in sorted(folder.glob(pattern))]
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise InvalidModel(f"{name} does not hold a single model that can be read: {names}")
    return files[0]
