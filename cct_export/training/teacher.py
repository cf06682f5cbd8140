"""Knowledge distillation: a trained classifier whose answers a model learns besides the labels."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cct_export.bounds import shown
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.model.checkpoint import image_shape
from cct_export.model.outputs import activation_of, outputs_of
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.text import one_line
from cct_export.training.run import WeightsSource
from cct_export.training.transfer import Pretrained

# Layers that take raw pixels, most of which bfloat16 cannot represent after augmentation.
_PREPROCESSING = (layers.InputLayer, layers.Rescaling, layers.Normalization)
_COMPUTE = "mixed_bfloat16"
# Added to probabilities before their logarithm is taken.
_TINY = 1e-7


@dataclass(frozen=True)
class Teacher:
    """A trained classifier to learn from.

    Attributes:
        model: maps raw pixels (0–255, NHWC) to logits or probabilities.
        origin: where its weights are from.
        labels: its class names in the order of its outputs; empty if unknown.
    """

    model: keras.Model
    origin: WeightsSource
    labels: tuple[str, ...] = ()

    def check(self, spec: ModelSpec, start: Pretrained | None, recipe: TrainSpec) -> None:
        """Checks that a model can learn from it.

        Args:
            spec: the model to train, with the classes of the data.
            start: the model that training starts from, or None.
            recipe: hyperparameters.

        Raises:
            InvalidModel: it gives NaN or infinity.
            InvalidRequest: its images or classes are others, or it answers as the model does
                before its first step.
        """
        source = self.origin.source
        shape = (spec.image_size, spec.image_size, spec.channels)
        if image_shape(self.model) != shape:
            given, needed = (
                "×".join(map(str, sizes)) for sizes in (image_shape(self.model), shape)
            )
            raise InvalidRequest(
                f"the teacher {source} takes images of {given}, and the model {needed}: it has to "
                "see the same images; train both at one size (--image-size)"
            )
        self._check_classes(spec)
        # With another activation, or rounded, it can learn the answers that it gave before.
        if (
            start is not None
            and start.origin.sha256 == self.origin.sha256
            and start.model.spec.activation == spec.activation
            and recipe.quantize == "none"
        ):
            raise InvalidRequest(
                f"the teacher {source} has the weights that training starts from: it has nothing "
                "to teach; name another teacher, leave --from out, or train with rounded "
                "activations (--quantize int8-full)"
            )
        if recipe.embedding_weight and _embedding(self.model) is None:
            raise InvalidRequest(
                f"the teacher {source} does not end in a dense layer of one embedding: set "
                "embedding_weight to 0"
            )
        pixels = np.random.default_rng(0).integers(0, 256, (8, *shape)).astype(np.float32)
        frozen = FrozenTeacher(self)
        answers = [value for value in frozen(pixels) if value is not None]
        if not all(np.isfinite(ops.convert_to_numpy(answer)).all() for answer in answers):
            raise InvalidModel(f"the teacher {source} gives NaN or infinity: name another one")

    def _check_classes(self, spec: ModelSpec) -> None:
        source, outputs = self.origin.source, outputs_of(self.model)
        if len(outputs) != 1 or outputs[0].has_slots or outputs[0].is_binary:
            raise InvalidRequest(
                f"the teacher {source} has to give one logit or probability for each class that "
                "excludes the others: name a classifier with one such output"
            )
        if outputs[0].classes != spec.classes:
            raise InvalidRequest(
                f"the teacher {source} knows {outputs[0].classes} classes, and the data has "
                f"{spec.classes}: name a teacher of the same classes"
            )
        if self.labels and spec.labels and self.labels != spec.labels:
            differing = next(
                pair for pair in zip(self.labels, spec.labels, strict=True) if len(set(pair)) == 2
            )
            raise InvalidRequest(
                f"the teacher {source} knows a class {shown(differing[0])} where the data has "
                f"{shown(differing[1])}: name a teacher of the same classes in the same order"
            )


class FrozenTeacher(layers.Layer):
    """A copy of a teacher that is not trained and computes in bfloat16, with float32 weights.

    Args:
        teacher: the teacher; its model is not changed.

    Raises:
        InvalidModel: the model cannot be copied.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(name="teacher", dtype="float32", trainable=False)
        model = _copy(teacher.model, teacher.origin.source)
        for layer in model._flatten_layers():
            if not isinstance(layer, _PREPROCESSING):
                layer.dtype_policy = _COMPUTE
        embedding = _embedding(model)
        self.model = keras.Model(model.inputs, [*model.outputs, *_present(embedding)])
        self.model.trainable = False
        self.is_probability = activation_of(model) == "softmax"
        self.embedding_width = None if embedding is None else embedding.shape[-1]

    def call(self, images: Any) -> tuple[Any, Any]:
        """Returns logits, float32 ``(batch, classes)``, and the embedding or None.

        Args:
            images: float32 ``(batch, height, width, channels)``, 0–255.
        """
        outputs = self.model(images, training=False)
        logits, *embedding = (ops.cast(each, "float32") for each in keras.tree.flatten(outputs))
        if self.is_probability:
            logits = ops.log(logits + _TINY)
        return logits, embedding[0] if embedding else None


def distillation_losses(teacher: Any, student: Any, recipe: TrainSpec) -> Any:
    """Returns how far a model's logits are from its teacher's, float32 ``(batch,)``.

    That is the Kullback-Leibler divergence of the softened distributions, times the squared
    temperature (arXiv:1503.02531), or half the mean squared difference of the logits, each less
    the mean over the classes, which means nothing (arXiv:2105.08919).

    Args:
        teacher: logits of the teacher, float32 ``(batch, classes)``.
        student: logits of the model, of the same shape.
        recipe: its ``teacher_loss`` and ``temperature``.
    """
    if recipe.teacher_loss == "mse":
        difference = teacher - student
        difference -= ops.mean(difference, axis=-1, keepdims=True)
        return ops.mean(ops.square(difference), axis=-1) / 2
    temperature = recipe.temperature
    wanted = ops.log_softmax(teacher / temperature)
    given = ops.log_softmax(student / temperature)
    return temperature**2 * ops.sum(ops.exp(wanted) * (wanted - given), axis=-1)


def embedding_losses(teacher: Any, projected: Any) -> Any:
    """Returns the mean squared difference of two embeddings, float32 ``(batch,)``.

    Args:
        teacher: of the teacher, float32 ``(batch, width)``; scaled to a mean square of 1.
        projected: of the model, projected to the same width.
    """
    square = ops.mean(ops.square(teacher), axis=-1, keepdims=True)
    scaled = teacher * ops.rsqrt(square + _TINY)
    return ops.mean(ops.square(scaled - projected), axis=-1)


def _copy(model: keras.Model, source: str) -> keras.Model:
    """Returns a model with the same configuration and weights."""
    own = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    try:
        config = keras.saving.serialize_keras_object(model)
        copy = keras.saving.deserialize_keras_object(config, custom_objects=own, safe_mode=False)
        copy.set_weights(model.get_weights())
    # Layers raise any kind of exception; in each case there is no copy.
    except Exception as error:
        raise InvalidModel(
            f"the teacher {source} cannot be copied ({one_line(str(error).partition('. ')[0])}): "
            "name a .keras or .h5 file, or a model whose layers have a get_config"
        ) from error
    return copy


def _embedding(model: keras.Model) -> Any:
    """Returns the tensor that a model's last dense layer gets, ``(batch, width)``; None if none."""
    tensor = model.outputs[0]
    while True:
        operation, node_index, _ = tensor._keras_history
        arguments = operation._inbound_nodes[node_index].input_tensors
        if isinstance(operation, layers.Dense):
            return arguments[0] if len(arguments[0].shape) == 2 else None
        if len(arguments) != 1 or bool(getattr(operation, "weights", None)):
            return None
        tensor = arguments[0]


def _present(tensor: Any) -> list[Any]:
    return [] if tensor is None else [tensor]
