"""The optimizer of a recipe, its learning rate, and Muon on batches of matrices."""

import math
from collections import defaultdict
from typing import Any, TypeAlias

import keras
from keras import ops

from cct_export.specs import TrainSpec

Shape: TypeAlias = tuple[int, int]

# Variables that are neither matrices nor filters, by the end of their names.
_NOT_DECAYED = ("bias", "gamma", "beta", "embeddings")
# Layers whose matrices Muon leaves to AdamW.
_NOT_ORTHOGONALIZED = ("logits", "pooling")


class Muon(keras.optimizers.Muon):
    """Keras' Muon, which orthogonalizes all matrices of a shape in one product of batches.

    A matrix that is taller than wide shares the batch of its transpose. The kernels of Keras'
    ``MultiHeadAttention``, which have an axis for the heads, and the filters of convolutions are
    orthogonalized as the matrices by which they multiply a token or a patch. What is no kernel,
    such as a bias per head, is left to AdamW.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        if matrix_shape(variable.path, tuple(variable.shape)) is None:
            return True
        excluded = [*self.exclude_layers, *(["embedding"] if self.exclude_embeddings else [])]
        return any(part in variable.path for part in excluded)

    def build(self, variables: list[Any]) -> None:
        """Makes the momentums; Keras calls it."""
        if self.built:
            return
        super().build(variables)
        # By index: TensorFlow's own variables, which a step has, lack the path.
        self.matrix_shapes = [matrix_shape(v.path, tuple(v.shape)) for v in variables]

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        """Updates the matrices in batches, all other variables one by one; Keras calls it."""
        matrices: list[tuple[Any, Any]] = []
        others: list[tuple[Any, Any]] = []
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            adam = self.adam_velocities[self._get_variable_index(variable)] is not None
            (others if adam or _on_replicas() else matrices).append((gradient, variable))
        if others:
            super()._backend_update_step(*zip(*others, strict=True), learning_rate)
        self._muon_update(matrices, learning_rate)

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        """Updates one matrix, on replicas of TensorFlow, whose gradients cannot be stacked."""
        self._muon_update([(gradient, variable)], lr)

    def _muon_update(self, matrices: list[tuple[Any, Any]], learning_rate: Any) -> None:
        """Updates variables that are matrices.

        Args:
            matrices: gradient and variable of each.
            learning_rate: scalar.
        """
        batches: dict[tuple[int, int, str], list[Any]] = defaultdict(list)
        for gradient, variable in matrices:
            index = self._get_variable_index(variable)
            rows, columns = self.matrix_shapes[index]
            direction = ops.reshape(self._direction(gradient, index), (rows, columns))
            wide = direction if rows <= columns else ops.transpose(direction)
            dtype = keras.backend.standardize_dtype(variable.dtype)
            batches[(*wide.shape, dtype)].append((wide, variable, rows > columns))
        for batch in batches.values():
            wides, variables, are_transposed = zip(*batch, strict=True)
            updates = self.zeropower_via_newtonschulz5(ops.stack(wides), self.ns_steps)
            for update, variable, is_transposed in zip(
                ops.unstack(updates, len(batch)), variables, are_transposed, strict=True
            ):
                step = self.lr_adjust(
                    learning_rate * (ops.transpose(update) if is_transposed else update)
                )
                self.assign_sub(variable, ops.reshape(step, variable.shape))

    def _direction(self, gradient: Any, index: int) -> Any:
        """Adds a gradient to its momentum; returns what is orthogonalized, of the same shape."""
        momentum = self.momentums[index]
        self.assign_add(momentum, ops.add(gradient, momentum * (self.momentum - 1)))
        return ops.add(gradient, self.momentum * momentum) if self.nesterov else momentum


def matrix_shape(path: str, shape: tuple[int, ...]) -> Shape | None:
    """Returns rows and columns of a kernel that multiplies rows of numbers; None of all else.

    Args:
        path: of the variable, such as ``block_0/attention/query/kernel``.
        shape: of the variable; with three axes it is that of attention with an axis for its heads:
            (width, heads, head width), or (heads, head width, width) after it; with four axes that
            of filters: (height, width, inputs, outputs).
    """
    *_, layer, name = ("", *path.split("/"))
    if name != "kernel" or len(shape) not in (2, 3, 4):
        return None
    inputs = len(shape) - 1 if len(shape) == 4 or layer == "attention_output" else 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])


def _on_replicas() -> bool:
    """Returns whether TensorFlow distributes the step."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def optimizer(recipe: TrainSpec, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe.

    Args:
        recipe: hyperparameters.
        steps: per epoch, for the learning rate schedule.
    """
    common: dict[str, Any] = {
        "learning_rate": learning_rate(recipe, steps),
        "weight_decay": recipe.weight_decay,
        "global_clipnorm": recipe.clip_norm or None,
        "use_ema": recipe.ema > 0,
    }
    if recipe.ema:
        common["ema_momentum"] = recipe.ema
    if recipe.optimizer == "adamw":
        chosen = keras.optimizers.AdamW(**common)
    elif recipe.optimizer == "muon":
        chosen = Muon(
            **common,
            adam_weight_decay=recipe.weight_decay,
            exclude_layers=list(_NOT_ORTHOGONALIZED),
        )
    else:
        chosen = keras.optimizers.SGD(**common, momentum=0.9, nesterov=True)
    if not recipe.decay_all:
        chosen.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))
    return chosen


def learning_rate(recipe: TrainSpec, steps: int) -> Any:
    """Returns the learning rate, or its schedule: linear warm-up, then constant or cosine.

    Args:
        recipe: hyperparameters.
        steps: per epoch.
    """
    peak, warmup_steps = recipe.learning_rate, int(recipe.warmup_epochs * steps)
    if recipe.schedule == "constant" and not warmup_steps:
        return peak
    # A cosine from 1 to 1 is constant.
    final = 1.0 if recipe.schedule == "constant" else recipe.final_rate
    decay_steps = max(1, recipe.epochs * steps - warmup_steps)
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps, final)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps, final, warmup_target=peak, warmup_steps=warmup_steps
    )
