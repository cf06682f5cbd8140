"""What a user may write where a command takes a MODEL."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cct_export.errors import InvalidModel
from cct_export.files import sha256
from cct_export.importers import keras_io
from cct_export.model import checkpoint, presets
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
    """

    model: keras.Model
    source: str
    sha256: str
    data: str | None = None
    calibration: Path | None = None


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


def load_model(source: str) -> LoadedModel:
    """Loads a MODEL.

    Args:
        source: a preset with shipped weights, a ``.keras`` file, a run directory, or a
            ``.weights.h5`` of the keras.io example.

    Raises:
        InvalidModel: nothing there, not readable, unsafe, or no image classifier.
    """
    path = Path(source).expanduser()
    data, calibration = None, None
    if source in presets.PRESETS:  # a folder of that name is ./NAME
        path = presets.shipped_checkpoint(source)
        calibration = path.with_suffix(".calibration.npz")
    elif not source:
        raise InvalidModel("the name of the model is empty")
    elif path.is_dir():
        run = RunDirectory(path)
        data = run.record()["train"]["data"]
        path, calibration = run.best_file, run.calibration_file
        if not path.is_file():
            raise InvalidModel(f"{source} holds no finished epoch yet: no {path.name} in it")
    elif not path.suffix and not path.exists() and path.name == source:
        path = presets.shipped_checkpoint(source)
    if path.name.endswith(".weights.h5"):
        model: keras.Model = keras_io.load(path)
    elif path.suffix == ".keras":
        model = checkpoint.load(path)
    elif path.exists():
        raise InvalidModel(
            f"{source} is no model this tool reads: it takes .keras, .weights.h5, "
            "a run directory or the name of a preset"
        )
    else:
        raise InvalidModel(f"no such model file: {source}")
    return LoadedModel(model, source, sha256(path), data, calibration)
