"""Learners of which each replica sees a part of the batch."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from cct_export.model.cct import CCT
from cct_export.specs import TrainSpec
from cct_export.training.learner import Learner


class SharedLearner(Learner):
    """Learns from batches that have a ``weight`` too, see ``batches.SharedBatches``.

    Args:
        cct: the model that learns.
        recipe: how.
    """

    def __init__(self, cct: CCT, recipe: TrainSpec) -> None:
        super().__init__(cct, recipe)
        # Keras' own mean of the loss counts repeated images; this one stands after it in the list
        # of metrics, and so takes its place in the logs.
        self.mean_loss = keras.metrics.Mean(name="loss")

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Returns logits, the targets they are to meet, and what each image weighs."""
        return super().call(batch, training) | {"weight": batch["weight"]}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the cross entropy of the images that weigh something; Keras calls it."""
        return self.criterion(y_pred["target"], y_pred["logits"], y_pred["weight"])

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics, every image once, and returns them; Keras calls it."""
        counted = ops.cast(y_pred["weight"] > 0, "float32")
        for measure in self.measures:
            measure.update_state(y_pred["target"], y_pred["logits"], counted)
        losses = keras.losses.categorical_crossentropy(
            y_pred["target"], y_pred["logits"], True, self.criterion.label_smoothing
        )
        self.mean_loss.update_state(losses, counted)
        found: dict[str, Any] = self.get_metrics_result()
        return found


class StrategyLearner(SharedLearner):
    """Learns under a ``tf.distribute`` strategy, by the same steps as one process.

    Keras' own steps cannot run under MultiWorkerMirroredStrategy (Keras 3.15 averages the metrics
    of a step over an axis that scalars do not have), and they clip the gradient of each replica
    where that of the batch is meant.

    Args:
        cct: the model that learns.
        recipe: how.
    """

    train_function: Any
    test_function: Any

    def __init__(self, cct: CCT, recipe: TrainSpec) -> None:
        super().__init__(cct, recipe)
        self.clip_norm = recipe.clip_norm

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds nothing: Keras would do so with a batch averaged over the workers."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """Learns from the part of one replica; returns the metrics so far."""
        import tensorflow as tf

        batch, *_ = data
        with tf.GradientTape() as tape:
            seen = self(batch, training=True)
            loss = self.optimizer.scale_loss(self.compute_loss(y_pred=seen))
        weights = self.trainable_weights
        gradients = tape.gradient(loss, weights)
        if self.clip_norm:
            gradients = self._clipped(gradients)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self.compute_metrics(batch, None, seen)

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        """Returns each replica's equal share of the gradient of the batch, clipped."""
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        whole = replica.all_reduce("SUM", gradients)
        # float16 gradients are scaled up, as the loss is, until the optimizer applies them.
        clipped, _ = tf.clip_by_global_norm(whole, self.optimizer.scale_loss(self.clip_norm))
        return [gradient / replica.num_replicas_in_sync for gradient in clipped]

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measures the part of one replica; returns the metrics so far."""
        batch, *_ = data
        return self.compute_metrics(batch, None, self(batch, training=False))

    def make_train_function(self, force: bool = False) -> Any:
        """Sets what ``fit`` calls for a step."""
        made: Any = getattr(self, "train_function", None)
        if made is None or force:
            self.train_function: Any = self._on_replicas(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Sets what ``evaluate`` calls for a step."""
        made: Any = getattr(self, "test_function", None)
        if made is None or force:
            self.test_function: Any = self._on_replicas(self.test_step)
        return self.test_function

    def _on_replicas(self, step: Callable[[Any], dict[str, Any]]) -> Any:
        """Returns a step over all replicas: from an iterator to the mean of their metrics."""
        import tensorflow as tf

        strategy = self.distribute_strategy
        names = sorted({measure.name for measure in self.metrics})

        @tf.function(reduce_retracing=True)
        def run(data: Any) -> Any:
            found = strategy.run(stacked, args=(data,))
            return strategy.reduce("MEAN", found, axis=None)

        def stacked(data: Any) -> Any:
            # One tensor, and so one message to the other workers.
            return tf.stack([value for _, value in sorted(step(data).items())])

        def taken(iterator: Any) -> dict[str, Any]:
            values = run(next(iterator)).numpy()
            return dict(zip(names, map(float, values), strict=True))

        return taken
