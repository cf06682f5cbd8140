"""Several devices and workers by ``tf.distribute``."""

import contextlib
import json
import os
from typing import Any

import numpy as np

from cct_export.errors import InvalidRequest
from cct_export.specs import TrainSpec
from cct_export.training.batches import Batches, SharedBatches
from cct_export.training.distribution import Alone
from cct_export.training.learner import Learner
from cct_export.training.replicas import StrategyLearner

_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
# Between the seeds of two replicas; those of a model's layers are next to each other.
_APART = 1_000_003


def together(word: str) -> Alone:
    """Returns the devices of this machine, or of all workers that TF_CONFIG names.

    Raises:
        InvalidRequest: TF_CONFIG does not say which worker this is, or TensorFlow has computed.
    """
    import tensorflow as tf

    if word == "local":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        return Strategy(tf.distribute.MirroredStrategy(devices), 0, 1)
    index, workers = _task()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InvalidRequest(
            f"workers must be begun before TensorFlow computes: {error}"
        ) from error
    return Strategy(strategy, index, workers)


def _task() -> tuple[int, int]:
    """Returns which worker this is, and how many there are, by TF_CONFIG."""
    said = os.environ.get("TF_CONFIG")
    if not said:
        raise InvalidRequest(f"workers need TF_CONFIG, such as {_EXAMPLE}")
    try:
        config = json.loads(said)
    except ValueError as error:
        raise InvalidRequest(
            f"TF_CONFIG is no JSON ({error}): it should be like {_EXAMPLE}"
        ) from None
    try:
        workers, kind, index = (
            config["cluster"]["worker"],
            config["task"]["type"],
            config["task"]["index"],
        )
        known = len(config["cluster"]) == 1 and all(isinstance(one, str) for one in workers)
    except (TypeError, KeyError):
        known = False
    if not known:
        raise InvalidRequest(
            f"TF_CONFIG is to name workers and a task, like {_EXAMPLE}, not {said}"
        )
    if kind != "worker" or type(index) is not int or not 0 <= index < len(workers):
        raise InvalidRequest(
            f"TF_CONFIG has the task {kind!r} {index!r}: it is 'worker', "
            f"0 to {len(workers) - 1}, on each machine another"
        )
    return index, len(workers)


class Strategy(Alone):
    """Replicas of a ``tf.distribute`` strategy.

    Args:
        strategy: the strategy.
        worker: which of the workers this process is.
        workers: how many there are.
    """

    learner = StrategyLearner

    def __init__(self, strategy: Any, worker: int, workers: int) -> None:
        self.strategy = strategy
        self.worker = worker
        self.workers = workers
        self.replicas = strategy.num_replicas_in_sync

    def check(self, recipe: TrainSpec) -> None:
        """Looks whether a recipe can be followed together.

        Raises:
            InvalidRequest: it cannot.
        """
        super().check(recipe)
        if recipe.jit == "on":
            raise InvalidRequest(
                "steps that replicas of TensorFlow share are not compiled with XLA: leave jit at "
                "auto, or train on JAX"
            )

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the scope of the strategy."""
        scope: contextlib.AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def fit(
        self, learner: Learner, batches: Batches, validation: Batches, **arguments: Any
    ) -> None:
        """Calls ``fit`` with data sets that give each replica its part."""
        self._draw_apart(learner)
        learner.fit(
            self._parts(batches),
            steps_per_epoch=len(batches),
            validation_data=self._parts(validation),
            validation_steps=len(validation),
            **arguments,
        )

    def _draw_apart(self, learner: Learner) -> None:
        """Lets every replica draw other random numbers; those of the chief's first are saved."""
        import tensorflow as tf

        states = [v.value for v in learner.variables if v.path.endswith("seed_generator_state")]

        def apart() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                state.assign_add(tf.cast(tf.stack([replica * _APART, 0]), state.dtype))

        self.strategy.run(apart)

    def _parts(self, batches: Batches) -> Any:
        """Returns an endless data set of the parts of this worker's replicas."""
        import tensorflow as tf

        assert isinstance(batches, SharedBatches)
        first = batches.part(0, batches.mine[0])
        signature = {
            key: tf.TensorSpec((None, *array.shape[1:]), array.dtype)
            for key, array in first.items()
        }

        def parts(context: Any) -> Any:
            found = tf.data.Dataset.from_generator(
                lambda: ((part,) for part in batches.endless()), output_signature=(signature,)
            )
            # Endless by declaration: else the workers would ask each other before every step
            # whether all have something left.
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return found.apply(endless).prefetch(2 * len(batches.mine))

        return self.strategy.distribute_datasets_from_function(parts)

    def share(self, content: bytes) -> bytes:
        """Returns what the chief gave, as a sum over all replicas of which the others give 0."""
        length = int(self._sum(np.array([len(content)], np.int64))[0])
        words = np.zeros(-(-length // 8), np.int64)
        if self.chief:
            words.view(np.uint8)[:length] = np.frombuffer(content, np.uint8)
        return self._sum(words).tobytes()[:length]

    def _sum(self, numbers: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        def of(context: Any) -> Any:
            chief = context.replica_id_in_sync_group == 0
            return tf.constant(numbers if chief else np.zeros_like(numbers))

        each = self.strategy.experimental_distribute_values_from_function(of)
        total: np.ndarray = self.strategy.reduce("SUM", each, axis=None).numpy()
        return total

    def lost(self, error: BaseException) -> bool:
        """Tells whether an error is how TensorFlow says that another worker is gone."""
        import tensorflow as tf

        if self.workers == 1 or not isinstance(error, tf.errors.OpError):
            return False
        return isinstance(
            error,
            tf.errors.UnavailableError
            | tf.errors.AbortedError
            | tf.errors.CancelledError
            | tf.errors.DeadlineExceededError,
        ) or "Collective ops is aborted" in str(error)
