"""Opens the distribution of a training run on Keras' backend."""

import contextlib
from collections.abc import Iterator

import keras

from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.training import device_jax, distribution_jax, distribution_tensorflow
from cct_export.training.distribution_base import Distribution, WorkerLost, worker_lost_message


@contextlib.contextmanager
def distributed(mode: str | None) -> Iterator[Distribution]:
    """Connects the devices and workers of a run; must be entered before anything is computed.

    Args:
        mode: ``local`` for all devices of this machine, ``workers`` for those of all machines that
            the environment names, None for one device.

    Raises:
        InvalidRequest: unknown backend, one device only, or an environment that does not
            name the workers.
        WorkerLost: another worker ended before the run was finished.
    """
    distribution = one_device() if mode is None else _connect(mode)
    try:
        yield distribution
    except BaseException as error:
        distribution.close(_exit_code(error))
        if distribution.is_worker_loss(error):
            message = worker_lost_message(distribution.worker, distribution.workers)
            raise WorkerLost(message) from error
        raise
    distribution.close(0)


def one_device() -> Distribution:
    """Returns one device of Keras' backend."""
    return device_jax.JaxDevice() if keras.backend.backend() == "jax" else Distribution()


def _connect(mode: str) -> Distribution:
    backend = keras.backend.backend()
    distribution: Distribution
    if backend == "tensorflow":
        distribution = distribution_tensorflow.connect(mode)
    elif backend == "jax":
        distribution = distribution_jax.connect(mode)
    else:
        raise InvalidRequest(
            f"distribute needs Keras on TensorFlow or JAX, not {backend}: set KERAS_BACKEND"
        )
    if distribution.replicas == 1:
        raise InvalidRequest("there is one device only: leave distribute out")
    return distribution


def _exit_code(error: BaseException) -> int:
    """Returns the exit code that a command ends with because of an error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, CCTExportError) else 1
