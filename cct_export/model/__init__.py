"""The Compact Convolutional Transformer in Keras, on any backend."""

import os
import sys

from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.names import choose
from cct_export.streams import quiet_start

BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
# The extra that brings a library which Keras needs.
_EXTRAS = {"keras": "tensorflow", "tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


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
