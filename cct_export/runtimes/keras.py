"""Keras itself, the reference, on whatever backend it runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cct_export.runtimes.session import Logits, Quantization

if TYPE_CHECKING:
    import keras


class KerasSession:
    """A Keras model, compiled for inference. See ``Session``."""

    def __init__(self, model: "keras.Model") -> None:
        import keras

        from cct_export.model.checkpoint import image_shape, labels

        self._model = model
        self.engine = (f"keras-{keras.backend.backend()}", keras.__version__)
        self.image_shape = image_shape(model)
        self.io = "float32"
        self.input_quantization: Quantization | None = None
        self.output_quantization: Quantization | None = None
        self.batch: int | None = None
        self.contract: dict[str, Any] = {"labels": list(labels(model))}
        self.delegated_nodes: int | None = None
        self.total_nodes: int | None = None

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        return np.asarray(self._model.predict_on_batch(prepared), np.float32)

    def close(self) -> None:
        """Frees the model."""
        del self._model


def import_engine() -> None:
    """Imports Keras and its backend; raises ``MissingDependency``."""
    from cct_export.model import backend

    backend.start()


def open_session(path: Path, threads: int | None = None, trusted: bool = False) -> KerasSession:
    """Loads a MODEL (see ``cct_export.load``) and returns a session on it.

    ``threads`` is set for the whole process, so only where it is given, and for TensorFlow, in
    which nothing may have run yet; JAX takes its own.
    """
    import_engine()
    from cct_export.importers import load_model

    if threads is not None:
        _set_threads(threads)
    return KerasSession(load_model(os.fspath(path)).model)


def _set_threads(threads: int) -> None:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
