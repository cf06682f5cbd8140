"""Distributed training with ``tf.distribute``."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from cct_export.errors import InvalidRequest
from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training.batches import Batches, ShardedBatches
from cct_export.training.distribution_base import Distribution
from cct_export.training.learner import Learner, Tensors, WeightedLearner
from cct_export.training.teacher import Teacher

_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
# Difference between the seeds of two replicas: larger than that between layers of a model.
_SEED_STRIDE = 1_000_003


class _Cluster(msgspec.Struct, forbid_unknown_fields=True):
    worker: list[str]


class _Task(msgspec.Struct):
    type: str
    index: int


class _Config(msgspec.Struct):
    """The content of TF_CONFIG."""

    cluster: _Cluster
    task: _Task


def connect(mode: str) -> "TensorFlowDistribution":
    """Returns the devices of this machine, or those of all workers that TF_CONFIG names.

    Args:
        mode: ``local`` or ``workers``.

    Raises:
        InvalidRequest: TF_CONFIG does not name the workers, or TensorFlow is initialized already.
    """
    import tensorflow as tf

    if mode == "local":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        return TensorFlowDistribution(tf.distribute.MirroredStrategy(devices), 0, 1)
    worker, workers = _environment()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InvalidRequest(
            f"workers must be connected before TensorFlow computes: {error}"
        ) from error
    return TensorFlowDistribution(strategy, worker, workers)


def _environment() -> tuple[int, int]:
    """Returns the index of this worker and the number of workers from TF_CONFIG."""
    content = os.environ.get("TF_CONFIG")
    if not content:
        raise InvalidRequest(f"workers need TF_CONFIG, such as {_EXAMPLE}")
    try:
        config = msgspec.json.decode(content, type=_Config)
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"TF_CONFIG is to name workers and a task, like {_EXAMPLE}, not {content}"
        ) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"TF_CONFIG is no JSON ({error}): it should be like {_EXAMPLE}"
        ) from None
    task, workers = config.task, len(config.cluster.worker)
    if task.type != "worker" or not 0 <= task.index < workers:
        raise InvalidRequest(
            f"TF_CONFIG has the task {task.type!r} {task.index}: it is 'worker', "
            f"0 to {workers - 1}, different on each machine"
        )
    return task.index, workers


class StrategyLearner(WeightedLearner):
    """Trains under a ``tf.distribute`` strategy with the same steps as one process.

    Keras' own steps cannot run under MultiWorkerMirroredStrategy (Keras 3.15 averages the metrics
    of a step over an axis that scalars do not have), and they clip the gradient of each replica
    instead of that of the global batch.

    Args:
        cct: the model to train.
        recipe: hyperparameters.
        teacher: see ``Learner``.
    """

    train_function: Any
    test_function: Any

    def __init__(self, cct: CCT, recipe: TrainSpec, teacher: Teacher | None = None) -> None:
        super().__init__(cct, recipe, teacher)
        self.clip_norm = recipe.clip_norm

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds nothing: Keras would do so with a batch averaged over the workers."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the share of a replica in the mean loss, since gradients are summed up."""
        return super().compute_loss(*args, **kwargs) / self.distribute_strategy.num_replicas_in_sync

    def train_step(self, data: Any) -> Tensors:
        """Trains on the shard of one replica; returns the metrics so far."""
        import tensorflow as tf

        batch, *_ = data
        with tf.GradientTape() as tape:
            outputs = self(batch, training=True)
            loss = self.optimizer.scale_loss(self.compute_loss(y_pred=outputs))
        weights = self.trainable_weights
        gradients = tape.gradient(loss, weights)
        if self.clip_norm:
            gradients = self._clipped(gradients)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self.compute_metrics(batch, None, outputs)

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        """Returns the clipped gradient of the global batch, divided by the number of replicas."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        total = context.all_reduce("SUM", gradients)
        # float16 gradients are scaled, as the loss is, until the optimizer applies them.
        clipped, _ = tf.clip_by_global_norm(total, self.optimizer.scale_loss(self.clip_norm))
        return [gradient / context.num_replicas_in_sync for gradient in clipped]

    def test_step(self, data: Any) -> Tensors:
        """Evaluates the shard of one replica; returns the metrics so far."""
        batch, *_ = data
        return self.compute_metrics(batch, None, self(batch, training=False))

    def make_train_function(self, force: bool = False) -> Any:
        """Sets and returns the function that ``fit`` calls for a step."""
        if force or getattr(self, "train_function", None) is None:
            self.train_function = self._on_replicas(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Sets and returns the function that ``evaluate`` calls for a step."""
        if force or getattr(self, "test_function", None) is None:
            self.test_function = self._on_replicas(self.test_step)
        return self.test_function

    def _on_replicas(self, step: Callable[[Any], Tensors]) -> Any:
        """Returns a step over all replicas: from an iterator to the mean of their metrics."""
        import tensorflow as tf

        strategy = self.distribute_strategy
        names = sorted({metric.name for metric in self.metrics})

        def stacked(data: Any) -> Any:
            # One tensor, and so one message to the other workers.
            return tf.stack([value for _, value in sorted(step(data).items())])

        @tf.function(reduce_retracing=True)
        def run(data: Any) -> Any:
            return strategy.reduce("MEAN", strategy.run(stacked, args=(data,)), axis=None)

        def next_step(iterator: Any) -> dict[str, float]:
            values = run(next(iterator)).numpy()
            return dict(zip(names, map(float, values), strict=True))

        return next_step


class TensorFlowDistribution(Distribution):
    """Replicas of a ``tf.distribute`` strategy.

    Args:
        strategy: the strategy.
        worker: index of this process.
        workers: number of processes.
    """

    learner_type = StrategyLearner

    def __init__(self, strategy: Any, worker: int, workers: int) -> None:
        self.strategy = strategy
        self.worker = worker
        self.workers = workers
        self.replicas = strategy.num_replicas_in_sync

    def check(self, recipe: TrainSpec) -> None:
        """Checks that a recipe can be distributed.

        Raises:
            InvalidRequest: it cannot.
        """
        super().check(recipe)
        if recipe.jit == "on":
            raise InvalidRequest(
                "steps on replicas of TensorFlow are not compiled with XLA: leave jit at auto, or "
                "train on JAX"
            )

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the scope of the strategy."""
        scope: contextlib.AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def fit(self, learner: Learner, batches: Batches, validation: Batches, **options: Any) -> None:
        """Calls ``fit`` with datasets that give each replica its shards."""
        self._diversify_seeds(learner)
        learner.fit(
            self._dataset(batches),
            steps_per_epoch=len(batches),
            validation_data=self._dataset(validation),
            validation_steps=len(validation),
            **options,
        )

    def _diversify_seeds(self, learner: Learner) -> None:
        """Gives every replica other random numbers; the chief's first replica's are saved."""
        import tensorflow as tf

        states = [v.value for v in learner.variables if v.path.endswith("seed_generator_state")]

        def diversify() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                state.assign_add(tf.cast(tf.stack([replica * _SEED_STRIDE, 0]), state.dtype))

        self.strategy.run(diversify)

    def _dataset(self, batches: Batches) -> Any:
        """Returns an endless dataset of the shards of this worker's replicas."""
        import tensorflow as tf

        assert isinstance(batches, ShardedBatches)
        example = batches.shard(0, batches.own[0])
        signature = {
            key: tf.TensorSpec((None, *array.shape[1:]), array.dtype)
            for key, array in example.items()
        }

        def dataset(context: Any) -> Any:
            shards = tf.data.Dataset.from_generator(
                lambda: ((shard,) for shard in batches.endless_shards()),
                output_signature=(signature,),
            )
            # Without a declared cardinality the workers would ask each other before every step
            # whether all have data left.
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return shards.apply(endless).prefetch(2 * len(batches.own))

        return self.strategy.distribute_datasets_from_function(dataset)

    def broadcast(self, content: bytes) -> bytes:
        """Returns the chief's ``content``, as a sum over replicas of which all others give 0."""
        length = int(self._sum(np.array([len(content)], np.int64))[0])
        words = np.zeros(-(-length // 8), np.int64)
        if self.is_chief:
            words.view(np.uint8)[:length] = np.frombuffer(content, np.uint8)
        return self._sum(words).tobytes()[:length]

    def _sum(self, numbers: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        def value(context: Any) -> Any:
            chief = context.replica_id_in_sync_group == 0
            return tf.constant(numbers if chief else np.zeros_like(numbers))

        values = self.strategy.experimental_distribute_values_from_function(value)
        total: np.ndarray = self.strategy.reduce("SUM", values, axis=None).numpy()
        return total

    def is_worker_loss(self, error: BaseException) -> bool:
        """Tells whether TensorFlow raised ``error`` because another worker is gone."""
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
