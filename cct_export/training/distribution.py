"""Training on several devices of this machine, or on several machines.

The batch of a step is the recipe's whatever it is shared by, and so the model that comes out is the
same. Each process is a worker; worker 0 is the chief, which alone reads and writes the run
directory and says how far the run is. What it reads, the others get from it.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import keras

from cct_export import errors
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.training.batches import Batches, SharedBatches
from cct_export.training.learner import Learner

WORDS = ("local", "workers")


class WorkerLost(CCTExportError):
    """Another worker ended before the run did."""


class Alone:
    """One process on one device; the others are of this kind.

    Attributes:
        worker: which of the workers this process is.
        workers: how many there are.
        replicas: devices of all workers together.
        learner: what learns on them.
    """

    worker = 0
    workers = 1
    replicas = 1
    learner: type[Learner] = Learner

    @property
    def chief(self) -> bool:
        """Whether this process reads and writes the run directory."""
        return self.worker == 0

    def check(self, recipe: TrainSpec) -> None:
        """Looks whether a recipe can be followed together.

        Raises:
            InvalidRequest: it cannot.
        """
        check_batch(recipe.batch, self.replicas)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context in which variables are made and trained."""
        return contextlib.nullcontext()

    def batches(self, *arguments: Any) -> Batches:
        """Returns what this process takes of the batches; arguments as of ``Batches``."""
        if self.replicas == 1:
            return Batches(*arguments)
        each = self.replicas // self.workers
        mine = range(self.worker * each, (self.worker + 1) * each)
        return SharedBatches(self.replicas, mine, *arguments)

    def fit(
        self, learner: Learner, batches: Batches, validation: Batches, **arguments: Any
    ) -> None:
        """Calls ``fit`` of a learner that was made in ``scope``."""
        learner.fit(batches, validation_data=validation, **arguments)

    def share(self, content: bytes) -> bytes:
        """Returns, on every worker, what the chief gave; waits until it did."""
        return content

    def once(self, action: Callable[[], bytes]) -> bytes:
        """Lets the chief alone act; returns, on every worker, what came of it.

        Raises:
            CCTExportError: the action raised it; the other workers raise it too.
        """
        if self.workers == 1:
            return action()
        if not self.chief:
            return _said(self.share(b""))
        try:
            done = action()
        except CCTExportError as error:
            self.share(b"-" + json.dumps([type(error).__name__, str(error)]).encode())
            raise
        self.share(b"+" + done)
        return done

    def check_same(self, asked: bytes) -> None:
        """Compares what the workers were asked for.

        Raises:
            InvalidRequest: this worker was asked for something else than the chief.
        """
        if self.share(asked) != asked:
            raise InvalidRequest(
                f"worker {self.worker} has other options or data than worker 0: start all of them "
                "with the same"
            )

    def lost(self, error: BaseException) -> bool:
        """Tells whether an error is how a framework says that another worker is gone."""
        return False

    def end(self, code: int) -> None:
        """Takes leave of the other workers.

        Args:
            code: what the process ends with because of an error; 0 where all is done.
        """


def _said(told: bytes) -> bytes:
    """Returns what the chief told of its action, or raises what it raised."""
    if told[:1] == b"+":
        return told[1:]
    name, message = json.loads(told[1:])
    raise getattr(errors, name, CCTExportError)(message)


@contextlib.contextmanager
def begun(word: str | None) -> Iterator[Alone]:
    """Finds the other devices and workers; to be called before anything is computed.

    Args:
        word: ``local`` for all devices of this machine, ``workers`` for those of all machines that
            the environment names, None for one device.

    Raises:
        InvalidRequest: an unknown word or backend, nothing to share with, or an environment that
            does not say which worker this is.
        WorkerLost: another worker ended before the run did.
    """
    together = _together(word)
    try:
        yield together
    except BaseException as error:
        together.end(_exit_code(error))
        if together.lost(error):
            raise WorkerLost(loss_of(together.worker, together.workers)) from error
        raise
    together.end(0)


def loss_of(worker: int, workers: int) -> str:
    """Returns what is said where another worker is gone."""
    return (
        f"a worker was lost while worker {worker} waited for it: start all {workers} again "
        "with --resume"
    )


def _exit_code(error: BaseException) -> int:
    """Returns what a command ends with because of an error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, CCTExportError) else 1


def _together(word: str | None) -> Alone:
    if word is None:
        return Alone()
    if word not in WORDS:
        raise InvalidRequest(f"distribute is {' or '.join(WORDS)}, not {word!r}")
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from cct_export.training import distribution_tensorflow

        together = distribution_tensorflow.together(word)
    elif backend == "jax":
        from cct_export.training import distribution_jax

        together = distribution_jax.together(word)
    else:
        raise InvalidRequest(
            f"distribute needs Keras on TensorFlow or JAX, not {backend}: set KERAS_BACKEND"
        )
    if together.replicas == 1:
        raise InvalidRequest("there is one device only: leave distribute out")
    return together


def check_batch(batch: int, replicas: int) -> None:
    """Refuses a batch that cannot be cut into equal parts.

    Raises:
        InvalidRequest: it cannot.
    """
    if batch % replicas:
        below = batch - batch % replicas
        near = f"{below} or {below + replicas}" if below else f"{replicas}"
        raise InvalidRequest(
            f"a batch of {batch} cannot be shared equally by {replicas} devices: take {near}"
        )
