"""How a training run is distributed over devices and workers; by default it is not.

The global batch size is that of the recipe however many devices share it, so that the result is the
same. Each process is a worker; worker 0 is the chief, which alone reads and writes the run
directory and reports progress. The other workers get from it what it reads.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any

from cct_export import errors
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.training.batches import Batches, ShardedBatches, Subset
from cct_export.training.learner import Learner


class WorkerLost(CCTExportError):
    """Another worker ended before the run was finished."""


class Distribution:
    """One process on one device; subclasses have several.

    Attributes:
        worker: index of this process.
        workers: number of processes.
        replicas: devices of all workers together.
        learner_type: what is trained on them.
    """

    worker = 0
    workers = 1
    replicas = 1
    learner_type: type[Learner] = Learner

    @property
    def is_chief(self) -> bool:
        """Whether this process reads and writes the run directory."""
        return self.worker == 0

    def check(self, recipe: TrainSpec) -> None:
        """Checks that a recipe can be distributed.

        Raises:
            InvalidRequest: it cannot.
        """
        check_batch(recipe.batch, self.replicas)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which variables are created and trained."""
        return contextlib.nullcontext()

    def batches(self, subset: Subset, size: int, seed: int | None, epoch: int = 0) -> Batches:
        """Returns the batches that this process reads; arguments as of ``Batches``."""
        if self.replicas == 1:
            return Batches(subset, size, seed, epoch)
        local = self.replicas // self.workers
        own = range(self.worker * local, (self.worker + 1) * local)
        return ShardedBatches(self.replicas, own, subset, size, seed, epoch)

    def fit(self, learner: Learner, batches: Batches, validation: Batches, **options: Any) -> None:
        """Calls ``fit`` of a learner that was created in ``scope``."""
        learner.fit(batches, validation_data=validation, **options)

    def broadcast(self, content: bytes) -> bytes:
        """Returns the chief's ``content`` on every worker; waits for the chief."""
        return content

    def on_chief(self, action: Callable[[], bytes | None]) -> bytes:
        """Runs an action on the chief alone and returns its result on every worker.

        Raises:
            CCTExportError: the action raised it; the other workers raise it too.
        """
        if self.workers == 1:
            return action() or b""
        if not self.is_chief:
            return _result(self.broadcast(b""))
        try:
            result = action() or b""
        except CCTExportError as error:
            self.broadcast(b"-" + json.dumps([type(error).__name__, str(error)]).encode())
            raise
        self.broadcast(b"+" + result)
        return result

    def check_same(self, content: bytes) -> None:
        """Compares the configuration of the workers.

        Raises:
            InvalidRequest: ``content`` of this worker differs from that of the chief.
        """
        if self.broadcast(content) != content:
            raise InvalidRequest(
                f"worker {self.worker} has other options or data than worker 0: start all workers "
                "with the same"
            )

    def is_worker_loss(self, error: BaseException) -> bool:
        """Tells whether the framework raised ``error`` because another worker is gone."""
        return False

    def close(self, exit_code: int) -> None:
        """Disconnects from the other workers.

        Args:
            exit_code: of the process after an error; 0 if training finished.
        """


def _result(message: bytes) -> bytes:
    """Returns the result of the chief's action, or raises its error."""
    if message[:1] == b"+":
        return message[1:]
    name, text = json.loads(message[1:])
    raise getattr(errors, name, CCTExportError)(text)


def worker_lost_message(worker: int, workers: int) -> str:
    """Returns the error message for a lost worker."""
    return (
        f"a worker was lost while worker {worker} waited for it: start all {workers} again "
        "with --resume"
    )


def check_batch(batch: int, replicas: int) -> None:
    """Checks that a batch divides evenly.

    Raises:
        InvalidRequest: it does not.
    """
    if batch % replicas:
        below = batch - batch % replicas
        close = f"{below} or {below + replicas}" if below else f"{replicas}"
        raise InvalidRequest(
            f"a batch of {batch} cannot be shared equally by {replicas} devices: take {close}"
        )
