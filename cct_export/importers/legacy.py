"""Whole models in ``.h5`` files of Keras 2 and 3, and in ``.keras`` files of Keras 2.

Both are an architecture and its weights. Keras 3 builds the architecture, in its safe mode, from a
translated configuration, and then reads the weights. No code in a file is run.
"""

import copy
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import IO

import h5py
import keras

from cct_export.errors import InvalidModel
from cct_export.files import check_file
from cct_export.importers import keras2
from cct_export.model.checkpoint import (
    Objects,
    check_activations,
    check_architecture_size,
    check_archive,
    find_datasets,
    loading,
    read_config,
    read_weights,
)
from cct_export.specs import JSONObject
from cct_export.untrusted import refusing

_CONFIG = "model_config"


def load_hdf5(path: Path, objects: Objects) -> keras.Model:
    """Reads a whole model from an ``.h5`` file of Keras 2 or 3.

    Args:
        path: the file.
        objects: see ``checkpoint.load``.

    Raises:
        InvalidRequest: there is no such file.
        InvalidModel: damaged, weights alone, unsafe, or of layers that Keras 3 has not.
    """
    check_file(path, "model file")
    content = io.BytesIO(path.read_bytes())
    what = f"{path} is not a readable HDF5 file"
    with refusing(InvalidModel, what, otherwise="it is damaged"), h5py.File(content) as file:
        find_datasets(file, path)
        if _CONFIG not in file.attrs:
            raise InvalidModel(
                f"{path} holds weights without their architecture: save the whole model with "
                "model.save, best as .keras"
            )
        config = json.loads(file.attrs[_CONFIG])
    return _built(config, content, path, objects)


def is_keras2(path: Path) -> bool:
    """Tells whether a ``.keras`` file was written by Keras 2."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
        return str(metadata["keras_version"]).startswith("2.")
    # Whoever loads it says what is wrong with it.
    except Exception:
        return False


def load_archive(path: Path, objects: Objects) -> keras.Model:
    """Reads a ``.keras`` file for which ``is_keras2`` is true; see ``load_hdf5``."""
    check_archive(path)
    weights = read_weights(path)
    what = f"{path} cannot be loaded"
    with (
        refusing(InvalidModel, what, otherwise="its weights are damaged"),
        h5py.File(weights, "r+") as file,
    ):
        find_datasets(file, path)
        _rename_attention(file)
    return _built(read_config(path), weights, path, objects)


def _rename_attention(weights: h5py.File) -> None:
    """Gives the parts of attention layers the names of Keras 3, without an underscore."""
    names: list[str] = []
    weights.visit(names.append)
    for name in names:
        parent, _, part = name.rpartition("/")
        if part.startswith("_") and part.endswith("_dense"):
            weights.move(name, f"{parent}/{part[1:]}")


def _built(config: JSONObject, weights: IO[bytes], path: Path, objects: Objects) -> keras.Model:
    """Returns the model of a configuration, with its weights.

    Args:
        config: of the model.
        weights: an HDF5 file.
        path: the file of both.
        objects: see ``checkpoint.load``.
    """
    with loading(path), tempfile.TemporaryDirectory() as folder:
        objects = {**keras2.CLASSES, **objects}
        config = keras2.translated(config)
        check_architecture_size(copy.deepcopy(config), path, objects)  # Keras takes it apart
        with keras.saving.custom_object_scope(dict(objects)):
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        suffix = ".h5" if path.suffix != ".keras" else ".weights.h5"  # Keras goes by it
        file = Path(folder) / f"model{suffix}"
        weights.seek(0)
        file.write_bytes(weights.read())
        model.load_weights(file)
    check_activations(model, path)
    return model
