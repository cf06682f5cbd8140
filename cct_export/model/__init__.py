"""The Compact Convolutional Transformer in Keras, on any backend."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.names import choose
from cct_export.streams import quiet_start

BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
# The extra that brings a library which Keras needs.
_EXTRAS = {"keras": "tensorflow", "tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


# Libraries that TensorFlow and Keras import if they are there, for what no command uses: 190 MB.
_UNUSED = ("jax", "matplotlib", "sklearn")
_hidden: list[str] = []


def start_lean() -> None:
    """Has ``start`` leave out what no command uses, in a process that runs only a command.

    Keras then takes these libraries for missing as long as the process lives.
    """
    _hidden.extend(_UNUSED)


def start() -> None:
    """Imports Keras, and sets float32 and channels last, whatever ``keras.json`` says.

    Does nothing where Keras is imported already: its settings are the caller's then. Whoever
    imports a module that imports Keras calls this first. KERAS_BACKEND chooses the backend.

    Raises:
        MissingDependency: Keras or its backend is not installed.
        InvalidRequest: Keras does not know the backend.
    """
    if "keras" in sys.modules:
        return
    if backend := os.environ.get("KERAS_BACKEND"):
        os.environ["KERAS_BACKEND"] = choose(backend, BACKENDS, what="backend of Keras")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with quiet_start():
            with _without(_hidden if _is_tensorflow() else ()):
                import keras

            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                tf.config.list_physical_devices()  # which complains where there is no GPU
    except ImportError as error:
        library = error.name or "keras"
        if library not in _EXTRAS:
            raise MissingDependency(f"{library} is not installed: Keras needs it here") from error
        raise MissingDependency.of(library, _EXTRAS[library]) from error
    except ValueError as error:
        raise InvalidRequest(f"Keras cannot start: {error}") from error
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def _is_tensorflow() -> bool:
    """Returns whether Keras will choose TensorFlow, by its variable or its file of settings."""
    if backend := os.environ.get("KERAS_BACKEND"):
        return backend == "tensorflow"
    try:
        folder = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
        settings = json.loads(Path(folder, "keras.json").read_text("utf-8"))
        return bool(settings.get("backend", "tensorflow") == "tensorflow")
    except (FileNotFoundError, RuntimeError):  # no file, or a user without a home
        return True
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _without(libraries: Sequence[str]) -> Iterator[None]:
    """Has imports of libraries fail, in all threads, as if they were not installed."""
    hidden = [name for name in libraries if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: ImportError
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
