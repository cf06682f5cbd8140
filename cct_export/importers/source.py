"""What a user may write where a command takes a MODEL."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from cct_export import data
from cct_export.data.dataset import Dataset, ImageShape, check_classes
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.files import sha256
from cct_export.importers import hub, keras_io, keras_io_archive, paper, saved_model, state_dict
from cct_export.importers.foreign import Foreign, check_answers, check_options
from cct_export.model import checkpoint, presets
from cct_export.model.adapting import adapted
from cct_export.model.cct import CCT
from cct_export.specs import ImportSpec
from cct_export.training.run import RunDirectory


@dataclass(frozen=True)
class LoadedModel:
    """A Keras model and where it is from.

    Attributes:
        model: an image classifier with trained weights.
        source: what the user wrote.
        sha256: checksum of the file that holds the weights.
        data: what the run directory was trained on; None for other sources.
        calibration: where its calibration record would be; None for sources without.
        on_corrupt: what the run did with images that cannot be decoded, see ``data.read``.
    """

    model: keras.Model
    source: str
    sha256: str
    data: str | None = None
    calibration: Path | None = None
    on_corrupt: Literal["refuse", "skip"] = "refuse"

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
        """Class names in the order of the logits; empty if not known."""
        return checkpoint.labels(self.model)


def in_memory(model: keras.Model) -> LoadedModel:
    """Wraps a model of the caller's; its checksum is that of its weights.

    Raises:
        InvalidModel: it is no image classifier.
    """
    checkpoint.check_classifier(model, model.name)
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return LoadedModel(model, model.name, digest.hexdigest())


def _keras_file(path: Path, options: ImportSpec) -> Foreign:
    """Reads a ``.keras`` file of this package, of Keras' own layers, or of the keras.io example."""
    if keras_io_archive.is_example(path):
        return keras_io_archive.load(path, options)
    reason = "its configuration tells"
    check_options(path, options, heads=reason, gelu=reason)
    model = checkpoint.load(path)
    return Foreign(model, ".keras file", len(model.weights), model.count_params())


def _of_suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.name.lower().endswith(suffixes) and not path.is_dir()


# What a path may be, and what reads it; the first that accepts it does.
READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, ImportSpec], Foreign]], ...] = (
    (lambda path: (path / saved_model.FILE).is_file(), saved_model.load),
    (_of_suffix(".weights.h5"), keras_io.load),
    (_of_suffix(".keras"), _keras_file),
    (_of_suffix(*state_dict.SAFETENSORS, *state_dict.PICKLES), paper.load),
)


def load_foreign(source: str, options: ImportSpec) -> tuple[Foreign, str]:
    """Loads a model of any kind, and changes what ``options`` say.

    Args:
        source: see ``load_model``.
        options: what the model shall be.

    Returns:
        The model with an account of it, and the checksum of the file that holds the weights.

    Raises:
        InvalidModel: nothing there, not readable, unsafe, another architecture, or its logits are
            not finite.
        InvalidRequest: the model cannot be changed as the options say, or one of them does nothing.
        MissingDependency: a library that reads such a file is not installed.
    """
    path, _, _ = _located(source)
    found, checksum = _read(path, source, options)
    found = _finished(found, options, source)
    said = check_answers(found.model, source)
    return replace(found, notes=(*found.notes, *said)), checksum


# What MODEL may be, for who wrote something else.
_MODELS = (
    "a .keras or .weights.h5 file, a run directory, a preset with weights ({presets}), a PyTorch "
    "state dict (.pth, .safetensors), a folder with a SavedModel, or hf:OWNER/NAME"
)


def _read(path: Path, source: str, options: ImportSpec) -> tuple[Foreign, str]:
    for accepts, load in READERS:
        if accepts(path):
            return load(path, options), _checksum(path)
    if path.exists():
        raise InvalidModel(f"{source} is no model this tool reads: it takes {_models()}")
    if path.suffix:
        raise InvalidModel(f"no such model file: {source}")
    raise InvalidModel(
        f"there is no file, run directory or preset called {source}: MODEL is {_models()}"
    )


def _models() -> str:
    shipped = (name for name in presets.PRESETS if presets.ships(name))
    return _MODELS.format(presets=", ".join(shipped))


def _finished(found: Foreign, options: ImportSpec, source: str) -> Foreign:
    """Returns ``found`` changed as asked; raises ``InvalidRequest`` where that cannot be."""
    model = found.model
    changes = (options.image_size, options.classes, options.normalize, options.labels)
    if any(changes) and not isinstance(model, CCT):
        raise InvalidRequest(f"{source} is no CCT: nothing of it can be changed")
    if any(changes):
        model, notes = adapted(model, *changes)
        found = replace(found, model=model, notes=(*found.notes, *notes))
    return found


def _checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, of a SavedModel that of its graph and its weights."""
    if path.is_file():
        return sha256(path)
    files = sorted([path / saved_model.FILE, *(path / "variables").glob("variables.*")])
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def load_model(source: str) -> LoadedModel:
    """Loads a MODEL.

    Args:
        source: a preset with shipped weights, a run directory, a file or folder that one of
            ``READERS`` takes, or a repository of the Hub.

    Raises:
        InvalidModel: nothing there, not readable, unsafe, or no image classifier.
        MissingDependency: a library that reads such a file is not installed.
    """
    path, data, calibration = _located(source)
    found, checksum = _read(path, source, ImportSpec())
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    if data is not None:
        asked = RunDirectory(Path(source).expanduser()).record()["train"]
        on_corrupt = "skip" if asked.get("skip_corrupt") else "refuse"
    return LoadedModel(found.model, source, checksum, data, calibration, on_corrupt)


def _located(source: str) -> tuple[Path, str | None, Path | None]:
    """Returns the file or folder of weights, what they were trained on, and their record."""
    path = Path(source).expanduser()
    if source in presets.PRESETS:  # a folder of that name is ./NAME
        path = presets.shipped_checkpoint(source)
        return path, None, path.with_suffix(".calibration.npz")
    if not source:
        raise InvalidModel("the name of the model is empty")
    if hub.is_id(source):
        fetched = hub.fetch(source)
        return fetched, None, fetched.with_name(hub.CALIBRATION) if fetched.is_file() else None
    if path.is_dir() and not (path / saved_model.FILE).is_file():
        run = RunDirectory(path)
        data = run.record()["train"]["data"]
        if not run.best_file.is_file():
            name = run.best_file.name
            raise InvalidModel(f"{source} holds no finished epoch yet: no {name} in it")
        return run.best_file, data, run.calibration_file
    return path, None, None


def open_dataset(loaded: LoadedModel, data_name: str | None) -> Dataset | None:
    """Returns the data to calibrate on and compare with.

    Args:
        loaded: the model; a run directory names the data it was trained on.
        data_name: what ``--data`` says, None if nothing.

    Returns:
        The dataset; None when none was named, and the run's is not at hand.

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
