"""The Compact Convolutional Transformer in Keras, on any backend."""

import os

from cct_export.errors import InvalidRequest, MissingDependency

_EXTRAS = {"jax": "jax"}


def start(backend: str | None = None) -> None:
    """Imports Keras and sets float32 and channels last, whatever ``keras.json`` says.

    Args:
        backend: ``tensorflow`` or ``jax``; None for the one in KERAS_BACKEND.

    Raises:
        MissingDependency: Keras or its backend is not installed.
        InvalidRequest: Keras does not know the backend.
    """
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import keras
    except ImportError as error:
        library = error.name or "keras"
        raise MissingDependency.of(library, _EXTRAS.get(library, "tensorflow")) from error
    except ValueError as error:
        raise InvalidRequest(f"Keras cannot start: {error}") from error
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
