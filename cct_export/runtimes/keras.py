"""Keras, the reference, on any of its backends."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cct_export.errors import InvalidRequest, NotAvailable
from cct_export.importers import location
from cct_export.records import Contract, InputContract
from cct_export.runtimes.session import Logits, Session, chosen_delegate, side_by_side
from cct_export.specs import DEFAULT_DELEGATION, NO_OPTIONS, Delegation, ModelOptions

if TYPE_CHECKING:
    from cct_export.importers.source import LoadedModel

DELEGATES = {
    "default": "the processor that the backend chooses",
    "cpu": "the CPU",
    "gpu": "a GPU, with the backend that KERAS_BACKEND names",
}


class KerasSession(Session):
    """A loaded Keras model. See ``Session``."""

    def __init__(self, loaded: "LoadedModel") -> None:
        import keras

        self._model = loaded.model
        self.engine = (f"keras-{keras.backend.backend()}", keras.__version__)
        self.accelerator = _processor()
        self.delegate = "default"
        self.image_shape = loaded.image_shape
        self.io = "float32"
        self.batch = self._model.inputs[0].shape[0]
        self.contract = Contract(
            format="keras",
            scheme="none",
            source=loaded.source,
            source_sha256=loaded.sha256,
            labels=loaded.labels,
            input=InputContract.of("float32", None, loaded.image_shape, loaded.resize),
        )
        self.outputs = loaded.outputs

    def invoke(self, prepared: np.ndarray) -> Logits:
        """Runs once; see ``Session``."""
        outputs = self._model.predict_on_batch(prepared)
        several = outputs if isinstance(outputs, list | tuple) else [outputs]
        return side_by_side([np.asarray(output, np.float32) for output in several])

    def close(self) -> None:
        """Frees the model."""
        del self._model


def choose_delegate(name: str) -> str:
    """Returns a processor as this module names it; see ``Engine.choose_delegate``."""
    return chosen_delegate(name, DELEGATES, engine="Keras")


def import_engine() -> None:
    """Imports Keras and its backend; raises ``MissingDependency``."""
    from cct_export import model

    model.start()


def open_session(
    path: Path,
    *,
    threads: int | None = None,
    trusted: bool = False,
    delegation: Delegation = DEFAULT_DELEGATION,
    options: ModelOptions = NO_OPTIONS,
) -> KerasSession:
    """Loads a model as ``options`` say, see ``cct_export.load`` and ``Engine.open_session``.

    TensorFlow takes the number of threads for the whole process, before its first operation; JAX
    chooses its own. ``trusted`` has no effect: a model never runs code from its file. The backend
    chooses the processor; the delegates ``cpu`` and ``gpu`` only require it. ``options`` are what
    the user says of the model.
    """
    delegation = replace(delegation, name=choose_delegate(delegation.name))
    location.check(os.fspath(path))
    import_engine()
    if delegation.options:
        names = ", ".join(name for name, _ in delegation.options)
        raise InvalidRequest(f"Keras' delegates take no options, not {names}")
    if delegation.name not in ("default", _processor()):
        raise NotAvailable(
            f"Keras runs on the {_processor()} here, not on a {delegation.name}: "
            "its backend finds none"
        )
    from cct_export.importers.source import load_model

    if threads is not None:
        _set_threads(threads)
    return KerasSession(load_model(os.fspath(path), options))


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
