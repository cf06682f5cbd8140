"""Keras itself, the reference, on whatever backend it runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.records import Contract
from cct_export.runtimes.session import Logits, Quantization
from cct_export.specs import DEFAULT_DELEGATION, Delegation

if TYPE_CHECKING:
    import keras

DELEGATES = {
    "default": "what the backend finds",
    "cpu": "the CPU",
    "gpu": "a GPU, with the backend that KERAS_BACKEND names",
}


class KerasSession:
    """A Keras model, compiled for inference. See ``Session``."""

    def __init__(self, model: "keras.Model", source: str = "", sha256: str = "") -> None:
        import keras

        from cct_export.model.checkpoint import image_shape, labels

        self._model = model
        self.engine = (f"keras-{keras.backend.backend()}", keras.__version__)
        self.accelerator = _processor()
        self.delegate = "default"
        self.image_shape = image_shape(model)
        self.io = "float32"
        self.input_quantization: Quantization | None = None
        self.output_quantization: Quantization | None = None
        self.batch: int | None = None
        self.contract = Contract(
            format="keras",
            scheme="none",
            source=source,
            source_sha256=sha256,
            labels=labels(model),
        )
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


def open_session(
    path: Path,
    threads: int | None = None,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
) -> KerasSession:
    """Loads a MODEL (see ``cct_export.load``) and returns a session on it.

    Args:
        path: of the model.
        threads: set for the whole process, so only where it is given, and for TensorFlow, in
            which nothing may have run yet; JAX takes its own.
        trusted: changes nothing, a model never runs code of its file.
        delegation: ``default``, or ``cpu`` or ``gpu``: the backend takes what it finds, and this
            makes sure of it.

    Raises:
        InvalidModel: see ``cct_export.load``.
        InvalidRequest: options, which there are none.
        MissingDependency: Keras is not installed.
        NotAvailable: the backend runs on another processor.
    """
    import_engine()
    if delegation.name not in DELEGATES:
        raise NotAvailable(
            f"Keras has no delegate {delegation.name!r}: choose {', '.join(DELEGATES)}"
        )
    if delegation.options:
        names = ", ".join(name for name, _ in delegation.options)
        raise InvalidRequest(f"Keras' delegates take no options, not {names}")
    if delegation.name not in ("default", _processor()):
        raise NotAvailable(
            f"Keras runs on the {_processor()} here, not on a {delegation.name}: "
            "its backend finds none"
        )
    from cct_export.importers import load_model

    if threads is not None:
        _set_threads(threads)
    loaded = load_model(os.fspath(path))
    return KerasSession(loaded.model, loaded.source, loaded.sha256)


def _processor() -> str:
    """Returns ``cpu`` or ``gpu``, whichever the backend runs on."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return "cpu" if jax.default_backend() == "cpu" else "gpu"
    import tensorflow as tf

    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def _set_threads(threads: int) -> None:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
