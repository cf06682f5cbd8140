"""What is in a model: layers, parameters, and multiply-accumulates from its inference plan."""

import math
import re
from collections import Counter
from typing import Any

import keras

from cct_export.graph.fold import fold
from cct_export.graph.lower import can_lower, lower
from cct_export.model.cct import CCT
from cct_export.model.checkpoint import image_shape, labels
from cct_export.records import Architecture, Cost, Layer

# Where a weight is in Keras, and the step of the plan that it is part of.
_STEPS = (
    (r"tokenizer/conv_(\d+)", r"tokenizer/\1/conv"),
    (r"(block_\d+)/(attention/\w+|qkv|projection)", r"\1/attention"),
    (r"pooling/attention", r"pooling"),
)


def inspect(model: keras.Model, name: str) -> Architecture:
    """Returns what ``model`` is made of.

    Args:
        model: an image classifier.
        name: what the user wrote.
    """
    shape = image_shape(model)
    classes = int(model.outputs[0].shape[1])
    if not can_lower(model):
        return Architecture(name, shape, classes, labels(model), _layers(model))
    folded = fold(lower(model))
    cost = Cost(len(folded.steps), folded.parameters, folded.total_macs)
    spec = model.spec.to_dict()
    return Architecture(name, shape, classes, labels(model), _steps(model), spec, cost)


def _steps(model: CCT) -> tuple[Layer, ...]:
    """Returns the steps of the unfolded plan, each with the weights that Keras has for it."""
    plan = lower(model)
    trainable: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    for weight in model.weights:
        sizes = trainable if weight.trainable else fixed
        sizes[_step_of(weight.path)] += math.prod(weight.shape)
    return tuple(
        Layer(
            name := step.output,
            step.kind,
            plan.shapes[name],
            trainable[name],
            fixed[name],
            plan.macs(step),
        )
        for step in plan.steps
    )


def _step_of(path: str) -> str:
    layer = path.rpartition("/")[0]
    for pattern, step in _STEPS:
        layer = re.sub(f"^{pattern}$", step, layer)
    return layer


def _layers(model: keras.Model) -> tuple[Layer, ...]:
    """Returns the layers of a model that is no CCT; what they cost is not known."""
    return tuple(
        Layer(
            layer.name,
            type(layer).__name__,
            tuple(_output_shape(layer)),
            _count(layer.trainable_weights),
            _count(layer.non_trainable_weights),
            None,
        )
        for layer in model.layers
    )


def _output_shape(layer: Any) -> tuple[int | None, ...]:
    found = layer.output
    first = found[0] if isinstance(found, list | tuple) else found
    return tuple(first.shape)[1:]


def _count(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
