"""Inspection of a Keras model: layers, parameters, and multiply-accumulates of its plan."""

import math
import re
from collections import Counter
from typing import Any

import keras

from cct_export.graph.fold import fold
from cct_export.graph.lower import can_lower, lower
from cct_export.graph.plan import Plan
from cct_export.model.checkpoint import image_shape, labels
from cct_export.records import Architecture, Cost, Layer

# Path of a weight in Keras, and the step of the plan that contains it.
_STEPS = (
    (r"tokenizer/conv_(\d+)", r"tokenizer/\1/conv"),
    (r"(block_\d+)/(attention/\w+|qkv|projection)", r"\1/attention"),
    (r"pooling/attention", r"pooling"),
)


def inspect(model: keras.Model, *, name: str) -> Architecture:
    """Lists the layers of a model with their parameters and cost.

    Args:
        model: an image classifier.
        name: the source that the user named.
    """
    shape = image_shape(model)
    classes = int(model.outputs[0].shape[1])
    if not can_lower(model):
        return Architecture(name, shape, classes, labels(model), _layers(model))
    plan = lower(model)
    folded = fold(plan)
    cost = Cost(len(folded.steps), folded.parameters, folded.total_macs)
    layers = _plan_layers(model, plan)
    return Architecture(name, shape, classes, labels(model), layers, spec=model.spec, folded=cost)


def _plan_layers(model: keras.Model, plan: Plan) -> tuple[Layer, ...]:
    """Returns the steps of the unfolded plan, each with the number of its Keras weights."""
    trainable: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    for weight in model.weights:
        parameters = trainable if weight.trainable else fixed
        parameters[_step_of(weight.path)] += math.prod(weight.shape)
    return tuple(
        Layer(
            step.output,
            step.kind,
            plan.shapes[step.output],
            trainable[step.output],
            fixed[step.output],
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
    """Returns the layers of a model that is no CCT; their cost is not known."""
    return tuple(
        Layer(
            layer.name,
            type(layer).__name__,
            _output_shape(layer),
            _parameters(layer.trainable_weights),
            _parameters(layer.non_trainable_weights),
            None,
        )
        for layer in model.layers
    )


def _output_shape(layer: Any) -> tuple[int | None, ...]:
    outputs = layer.output
    first = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return tuple(first.shape)[1:]


def _parameters(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
