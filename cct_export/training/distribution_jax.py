"""Distributed training with ``keras.distribution`` on JAX."""

import atexit
import contextlib
import ctypes
import os
import re
import signal
import sys
import time
from typing import Any

import keras
import numpy as np

from cct_export.errors import InvalidRequest
from cct_export.training.device_jax import keep_compiled
from cct_export.training.distribution_base import Distribution, worker_lost_message
from cct_export.training.learner import WeightedLearner

_PREFIX = "KERAS_DISTRIBUTION_"
_HEARTBEAT_TIMEOUT_S = 30
_LAST_WORDS_S = 5
# In error messages of Gloo, NCCL and JAX's coordination service about a worker that is gone.
_WORKER_LOSS_WORDS = (
    "gloo", "nccl", "connection", "coordination", "heartbeat", "barrier", "unavailable",
)  # fmt: skip


def connect(mode: str) -> "JaxDistribution":
    """Returns the devices of this machine, or those of all workers that the environment names.

    Args:
        mode: ``local`` or ``workers``.

    Raises:
        InvalidRequest: the environment does not name the workers, or JAX is initialized already.
    """
    import jax

    keep_compiled()
    if mode == "workers":
        address, workers, worker = _environment()
        try:
            jax.distributed.initialize(
                address,
                workers,
                worker,
                heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_S,
                shutdown_timeout_seconds=_HEARTBEAT_TIMEOUT_S,
            )
        except RuntimeError as error:
            raise InvalidRequest(f"workers cannot be connected: {error}") from error
        _handle_abort(worker, workers)
    distribution = JaxDistribution(jax.process_index(), jax.process_count(), jax.device_count())
    # Gloo gives workers 30 s to connect from the first message on: now, while none is busy.
    distribution.broadcast(b"")
    return distribution


def _is_number(text: str) -> bool:
    """Returns whether a variable is a port, or a number of processes."""
    return re.fullmatch("[0-9]{1,5}", text) is not None


def _environment() -> tuple[str, int, int]:
    """Returns the coordinator's address, the number of workers, and the index of this one."""
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    addresses, workers, worker = (os.environ.get(_PREFIX + name) for name in names)
    if not addresses or not workers or not worker:
        raise InvalidRequest(
            f"workers need {_PREFIX}JOB_ADDRESSES=HOST:PORT of worker 0, {_PREFIX}NUM_PROCESSES=2 "
            f"and {_PREFIX}PROCESS_ID=0 or 1"
        )
    coordinator = addresses.split(",")[0]
    host, _, port = coordinator.rpartition(":")
    if not host or not _is_number(port):
        raise InvalidRequest(f"{_PREFIX}JOB_ADDRESSES is HOST:PORT of worker 0, not {addresses!r}")
    if not _is_number(workers) or not _is_number(worker) or int(worker) >= int(workers):
        raise InvalidRequest(
            f"{_PREFIX}PROCESS_ID is 0 to {_PREFIX}NUM_PROCESSES - 1, different on each machine, "
            f"not {worker!r} of {workers!r}"
        )
    return coordinator, int(workers), int(worker)


# The abort handler, which must not be garbage collected while C may call it; and the exit code of
# a process that leaves after an error.
_abort_handlers: list[Any] = []
_exit_codes: list[int] = []


def _handle_abort(worker: int, workers: int) -> None:
    """Prints an error line where JAX would abort the process without one.

    JAX aborts from a thread of its own when it misses worker 0 or another worker's heartbeat, often
    before the training step that waits for that worker fails.
    """

    def on_abort(signal_number: int) -> None:
        if not _exit_codes:
            sys.stderr.write(f"error: {worker_lost_message(worker, workers)}\n")
            sys.stderr.flush()
            os._exit(1)
        time.sleep(_LAST_WORDS_S)  # The main thread is about to print its error.
        os._exit(_exit_codes[0])

    _abort_handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort))
    ctypes.CDLL(None).signal(signal.SIGABRT, _abort_handlers[0])


def _exit_now() -> None:
    """Ends the process without JAX's shutdown, which would wait for the others and then abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_exit_codes[0])


class JaxDistribution(Distribution):
    """Devices that each have the whole model.

    Args:
        worker: index of this process.
        workers: number of processes.
        replicas: devices of all workers together.
    """

    learner_type = WeightedLearner

    def __init__(self, worker: int, workers: int, replicas: int) -> None:
        self.worker = worker
        self.workers = workers
        self.replicas = replicas
        self.distribution = keras.distribution.DataParallel(auto_shard_dataset=False)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the scope of the Keras distribution."""
        scope: contextlib.AbstractContextManager[Any] = self.distribution.scope()
        return scope

    def broadcast(self, content: bytes) -> bytes:
        """Returns the chief's ``content``."""
        if self.workers == 1:
            return content
        from jax.experimental.multihost_utils import broadcast_one_to_all

        length = int(broadcast_one_to_all(np.int32(len(content))))
        buffer = np.zeros(length, np.uint8)
        if self.is_chief:
            buffer[:] = np.frombuffer(content, np.uint8)
        return np.asarray(broadcast_one_to_all(buffer)).tobytes()

    def is_worker_loss(self, error: BaseException) -> bool:
        """Tells whether JAX raised ``error`` because another worker is gone."""
        # A failed step raises a JaxRuntimeError, which is a RuntimeError, or a ValueError.
        if self.workers == 1 or not isinstance(error, RuntimeError | ValueError):
            return False
        return any(word in str(error).lower() for word in _WORKER_LOSS_WORDS)

    def close(self, exit_code: int) -> None:
        """Shuts down together with the other workers; after an error without waiting for them."""
        import jax

        if self.workers == 1:
            return
        if not exit_code:
            jax.distributed.shutdown()
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            return
        _exit_codes.append(exit_code)
        atexit.register(_exit_now)
