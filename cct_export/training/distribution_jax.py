"""Several devices and workers by ``keras.distribution`` on JAX."""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import time
from typing import Any

import keras
import numpy as np

from cct_export.errors import InvalidRequest
from cct_export.training.distribution import Alone, loss_of
from cct_export.training.replicas import SharedLearner

_PREFIX = "KERAS_DISTRIBUTION_"
_LOST_AFTER_S = 30
_LAST_WORDS_S = 5
# Of messages about a worker that does not answer, by Gloo, NCCL and JAX's coordination.
_SIGNS = ("gloo", "nccl", "connection", "coordination", "heartbeat", "barrier", "unavailable")


def together(word: str) -> Alone:
    """Returns the devices of this machine, or of all workers that the environment names.

    Raises:
        InvalidRequest: the environment does not say which worker this is, or JAX has computed.
    """
    import jax

    if word == "workers":
        address, workers, index = _task()
        try:
            jax.distributed.initialize(
                address,
                workers,
                index,
                heartbeat_timeout_seconds=_LOST_AFTER_S,
                shutdown_timeout_seconds=_LOST_AFTER_S,
            )
        except RuntimeError as error:
            raise InvalidRequest(f"workers cannot begin: {error}") from error
        _speak_when_aborted(index, workers)
    parallel = Parallel(jax.process_index(), jax.process_count(), jax.device_count())
    # Gloo gives workers 30 s to find each other, from the first message on; later ones may take
    # as long as they do. Here all have just come.
    parallel.share(b"")
    return parallel


def _task() -> tuple[str, int, int]:
    """Returns the coordinator's address, how many workers there are, and which this is."""
    said = [os.environ.get(_PREFIX + n) for n in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")]
    address, workers, index = said
    example = f"{_PREFIX}JOB_ADDRESSES=HOST:PORT of worker 0, {_PREFIX}NUM_PROCESSES=2 and "
    if not address or not workers or not index:
        raise InvalidRequest(f"workers need {example}{_PREFIX}PROCESS_ID=0 or 1")
    first = address.split(",")[0]
    if not first.rpartition(":")[2].isdecimal() or not first.rpartition(":")[0]:
        raise InvalidRequest(f"{_PREFIX}JOB_ADDRESSES is HOST:PORT of worker 0, not {address!r}")
    if not workers.isdecimal() or not index.isdecimal() or int(index) >= int(workers):
        raise InvalidRequest(
            f"{_PREFIX}PROCESS_ID is 0 to {_PREFIX}NUM_PROCESSES - 1, on each machine another, "
            f"not {index!r} of {workers!r}"
        )
    return first, int(workers), int(index)


def _speak_when_aborted(worker: int, workers: int) -> None:
    """Has a line said where JAX would abort the process without one.

    JAX does so from a thread of its own as soon as worker 0 or the heartbeat of another worker is
    missed, often before the step that waits for that worker fails.
    """

    def speak(number: int) -> None:
        if not _leaving:
            print(f"error: {loss_of(worker, workers)}", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(_LAST_WORDS_S)  # The main thread is about to say it.
        os._exit(_leaving[0])

    _kept.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(speak))
    ctypes.CDLL(None).signal(signal.SIGABRT, _kept[0])


# What C calls must not be collected; with what exit code this process leaves the others.
_kept: list[Any] = []
_leaving: list[int] = []


def _leave_at_once() -> None:
    """Ends the process without JAX's farewell, which would wait for the others and then abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_leaving[0])


class Parallel(Alone):
    """Devices that each have the whole model.

    Args:
        worker: which of the workers this process is.
        workers: how many there are.
        replicas: devices of all workers together.
    """

    learner = SharedLearner

    def __init__(self, worker: int, workers: int, replicas: int) -> None:
        self.worker = worker
        self.workers = workers
        self.replicas = replicas
        self.distribution = keras.distribution.DataParallel(auto_shard_dataset=False)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the scope of the distribution."""
        scope: contextlib.AbstractContextManager[Any] = self.distribution.scope()
        return scope

    def share(self, content: bytes) -> bytes:
        """Returns what the chief broadcast."""
        if self.workers == 1:
            return content
        from jax.experimental.multihost_utils import broadcast_one_to_all

        length = int(broadcast_one_to_all(np.int32(len(content))))
        told = np.zeros(length, np.uint8)
        if self.chief:
            told[:] = np.frombuffer(content, np.uint8)
        return np.asarray(broadcast_one_to_all(told)).tobytes()

    def lost(self, error: BaseException) -> bool:
        """Tells whether an error is how JAX says that another worker is gone."""
        # A failed step is a JaxRuntimeError, which is a RuntimeError, or a ValueError.
        if self.workers == 1 or not isinstance(error, RuntimeError | ValueError):
            return False
        return any(sign in str(error).lower() for sign in _SIGNS)

    def end(self, code: int) -> None:
        """Takes leave of the others, who do so now too; after an error without waiting."""
        import jax

        if self.workers == 1:
            return
        if not code:
            jax.distributed.shutdown()
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            return
        _leaving.append(code)
        atexit.register(_leave_at_once)
