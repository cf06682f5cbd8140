"""Reading and writing ``.keras`` files."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from cct_export.data.dataset import ImageShape
from cct_export.errors import InvalidModel
from cct_export.files import replacing
from cct_export.model.cct import CCT
from cct_export.model.sizes import parameters
from cct_export.model.untrusted import check_archive, check_config, check_declared
from cct_export.specs import ModelSpec


def save(model: keras.Model, path: Path) -> None:
    """Writes ``model`` to ``path`` (suffix ``.keras``) in one step; raises ``OutputError``."""
    with replacing(path) as temporary:
        model.save(temporary)


def without_optimizer(model: CCT) -> CCT:
    """Returns an uncompiled twin of ``model``: saved, it takes a third of the bytes."""
    twin = CCT(model.spec)
    twin.set_weights(model.get_weights())
    return twin


def load(path: Path) -> keras.Model:
    """Reads a ``.keras`` file in Keras' safe mode: Python code in it is never run.

    Raises:
        InvalidModel: missing, truncated, not a Keras file, unsafe, or no image classifier.
    """
    if not path.is_file():
        raise InvalidModel(f"no such model file: {path}")
    if not zipfile.is_zipfile(path):
        raise InvalidModel(f"{path} is not a .keras file, or it is truncated: save the model again")
    check_archive(path)
    try:
        _check_architecture(path)
        with _as_keras_wants_it(path) as file:
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except InvalidModel:
        raise
    # Keras raises whatever its layers raise: every kind means that this file cannot be used.
    except Exception as error:
        raise InvalidModel(f"{path} cannot be loaded: {_reason(error)}") from error
    check_classifier(model, str(path))
    return model


def _check_architecture(path: Path) -> None:
    """Refuses far more weights than the file can hold: Keras makes them before it reads.

    Raises:
        InvalidModel: it has; the message has both sizes.
        Exception: whatever Keras raises where the file is broken.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    # By what Keras goes by; of a CCT a million layers are counted faster than built.
    if config.get("registered_name") == keras.saving.get_registered_name(CCT):
        check_declared(4 * parameters(ModelSpec(**config["config"]["spec"])), path)
    else:
        check_config(config, path)


@contextmanager
def _as_keras_wants_it(path: Path) -> Iterator[Path]:
    """Gives ``path``, or a copy with the suffix in small letters, the only one Keras reads."""
    if path.suffix == ".keras":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(path, Path(folder) / "model.keras"))


def _reason(error: Exception) -> str:
    # Keras wraps the cause between what it was doing and the configuration it was reading.
    text = str(error).rpartition("Exception encountered: ")[2].partition(" Full object config")[0]
    if "safe_mode" in text or "unsafe" in text.lower():
        return "it holds Python code (a Lambda layer or another callable), which is never run"
    first = text.strip().partition("\n")[0]
    return f"{first or type(error).__name__}"


def image_shape(model: keras.Model) -> ImageShape:
    """Returns height, width and channels of the model's input."""
    _, height, width, channels = model.inputs[0].shape
    return height, width, channels


def labels(model: keras.Model) -> tuple[str, ...]:
    """Returns the class names stored in the model, empty if it has none."""
    return model.spec.labels if isinstance(model, CCT) else ()


def check_classifier(model: Any, where: str) -> None:
    """Checks that ``model`` maps images (N, H, W, 1 or 3) to logits (N, classes).

    Raises:
        InvalidModel: it does not; the message has the shapes found.
    """
    inputs = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    outputs = [tuple(tensor.shape) for tensor in getattr(model, "outputs", None) or ()]
    good = (
        len(inputs) == len(outputs) == 1
        and len(inputs[0]) == 4
        and None not in inputs[0][1:]
        and inputs[0][3] in (1, 3)
        and len(outputs[0]) == 2
        and (outputs[0][1] or 0) >= 2
    )
    if not good:
        raise InvalidModel(
            f"{where} is not an image classifier: it maps {inputs} to {outputs}; "
            "needed is one image (None, height, width, 1 or 3) to logits (None, classes)"
        )
