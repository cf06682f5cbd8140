"""A CCT with augmentation, loss, metrics and optimizer, ready for Keras' ``fit``."""

import logging
from typing import Any, TypeAlias

import keras
from keras import ops

from cct_export.errors import InvalidRequest
from cct_export.model.cct import CCT
from cct_export.model.fake_quantize import fake_quantization, fake_quantized
from cct_export.specs import TrainSpec
from cct_export.training.augmentation import Augmentation
from cct_export.training.optimizer import optimizer
from cct_export.training.teacher import (
    FrozenTeacher,
    Teacher,
    distillation_losses,
    embedding_losses,
)

log = logging.getLogger(__name__)

Tensors: TypeAlias = dict[str, Any]


class Learner(keras.Model):
    """Trains a CCT on batches ``{"image": uint8, "target": one-hot float32}``.

    Targets are an input, since MixUp and CutMix change them together with the images; loss and
    metrics are computed from the outputs.

    Args:
        cct: the model to train; only its weights are kept in the end.
        recipe: hyperparameters.
        teacher: a model whose answers are learned besides the labels, or None.
    """

    def __init__(self, cct: CCT, recipe: TrainSpec, teacher: Teacher | None = None) -> None:
        super().__init__(name="learner")
        self.cct = cct
        self.recipe = recipe
        self.teacher = None if teacher is None else FrozenTeacher(teacher)
        self.projection = None
        if self.teacher is not None and recipe.embedding_weight:
            embedding = cct.get_layer("logits").input
            self.student = keras.Model(cct.inputs, [*cct.outputs, embedding])
            self.projection = keras.layers.Dense(
                self.teacher.embedding_width, dtype="float32", name="projection"
            )
            self.projection.build(embedding.shape)
        self.augmentation = Augmentation(recipe)
        self.accuracies = [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top5"),
        ]

    def build(self, shapes: Any) -> None:
        """Marks the model as built: its parts are, and augmentation has no weights."""
        self.built = True

    def call(self, batch: Any, training: bool | None = None) -> Tensors:
        """Returns ``logits`` and ``target``, the targets after augmentation.

        With a teacher, in training, ``teacher`` too, its logits for the same augmented images; and
        both embeddings where the recipe has a weight for them, that of the model projected.
        """
        images, targets = ops.cast(batch["image"], "float32"), batch["target"]
        if not training:
            (logits,) = self._outputs(self.cct, images, training=False)
            return {"logits": logits, "target": targets}
        images, targets = self.augmentation(images, targets)
        answers: Tensors = {"target": targets}
        if self.teacher is not None:
            answers["teacher"], answers["teacher_embedding"] = self.teacher(images)
        if self.projection is None:
            (answers["logits"],) = self._outputs(self.cct, images, training=True)
        else:
            answers["logits"], embedding = self._outputs(self.student, images, training=True)
            answers["embedding"] = self.projection(embedding)
        return answers

    def _outputs(self, model: keras.Model, images: Any, training: bool) -> list[Any]:
        """Returns the outputs of a model, the logits as float32.

        Their activations, and those before, are quantized where the recipe says so.
        """
        with fake_quantization(self.recipe.quantize != "none"):
            logits, *others = keras.tree.flatten(model(images, training=training))
            return [fake_quantized(ops.cast(logits, "float32")), *others]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the mean loss of a batch; Keras calls it."""
        return ops.mean(self.image_losses(y_pred))

    def image_losses(self, answers: Tensors) -> Any:
        """Returns the cross-entropy of each image, with its distance from the teacher if any.

        Args:
            answers: see ``call``.
        """
        recipe, logits = self.recipe, answers["logits"]
        losses = keras.losses.categorical_crossentropy(
            answers["target"], logits, from_logits=True, label_smoothing=recipe.label_smoothing
        )
        if "teacher" not in answers:
            return losses
        weight = recipe.teacher_weight
        distances = distillation_losses(answers["teacher"], logits, recipe)
        losses = (1 - weight) * losses + weight * distances
        if self.projection is not None:
            distances = embedding_losses(answers["teacher_embedding"], answers["embedding"])
            losses += recipe.embedding_weight * distances
        return losses

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Tensors:
        """Updates the metrics with a batch and returns them; Keras calls it."""
        for accuracy in self.accuracies:
            accuracy.update_state(y_pred["target"], y_pred["logits"])
        metrics: Tensors = self.get_metrics_result()
        return metrics


class WeightedLearner(Learner):
    """Trains on shards of batches, which have ``weight`` too, see ``batches.ShardedBatches``.

    Args:
        cct: the model to train.
        recipe: hyperparameters.
        teacher: see ``Learner``.
    """

    def __init__(self, cct: CCT, recipe: TrainSpec, teacher: Teacher | None = None) -> None:
        super().__init__(cct, recipe, teacher)
        # Keras' own mean of the loss counts repeated images. This metric comes after it in the
        # list of metrics, and so replaces it in the logs.
        self.mean_loss = keras.metrics.Mean(name="loss")

    def call(self, batch: Any, training: bool | None = None) -> Tensors:
        """Returns ``logits``, ``target`` and ``weight``."""
        return super().call(batch, training) | {"weight": batch["weight"]}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the weighted mean loss of a shard; Keras calls it."""
        return ops.mean(self.image_losses(y_pred) * y_pred["weight"])

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Tensors:
        """Updates the metrics with every image once, and returns them; Keras calls it."""
        counted = ops.cast(y_pred["weight"] > 0, "float32")
        for accuracy in self.accuracies:
            accuracy.update_state(y_pred["target"], y_pred["logits"], counted)
        self.mean_loss.update_state(self.image_losses(y_pred), counted)
        metrics: Tensors = self.get_metrics_result()
        return metrics


def check(recipe: TrainSpec) -> None:
    """Checks, before any work, that a recipe can be trained on this backend.

    Raises:
        InvalidRequest: ``jit`` is on and the step cannot be compiled.
    """
    if recipe.warmup_epochs < recipe.warmup:
        log.info(
            "warm-up of %g epoch%s shortened to %g: a tenth of the run",
            recipe.warmup, "" if recipe.warmup == 1 else "s", recipe.warmup_epochs,
        )  # fmt: skip
    used = [name for name in ("crop", "rand_augment", "mixup", "cutmix") if getattr(recipe, name)]
    if recipe.jit == "on" and keras.backend.backend() == "tensorflow" and used:
        raise InvalidRequest(
            f"jit on: TensorFlow's XLA cannot compile the augmentation of {' and '.join(used)}: "
            "leave jit at auto, set them to 0, or train on JAX"
        )


def compiled(
    cct: CCT,
    recipe: TrainSpec,
    steps: int,
    learner_type: type[Learner] = Learner,
    teacher: Teacher | None = None,
) -> Learner:
    """Returns a compiled learner.

    Args:
        cct: the model to train.
        recipe: hyperparameters.
        steps: per epoch, for the learning rate schedule.
        learner_type: ``Learner``, or one for several replicas.
        teacher: see ``Learner``.
    """
    learner = learner_type(cct, recipe, teacher)
    size, channels = cct.spec.image_size, cct.spec.channels
    learner.build({"image": (None, size, size, channels), "target": (None, cct.spec.classes)})
    jit = "auto" if recipe.jit == "auto" else recipe.jit == "on"
    learner.compile(optimizer(recipe, steps), jit_compile=jit)
    return learner
