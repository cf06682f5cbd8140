"""Inspection of a model: layers, parameters, and multiply-accumulates of its plan."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cct_export.graph.fold import fold
from cct_export.graph.lower import can_lower, lower, plan_from
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Shape
from cct_export.records import Architecture, Cost, Layer
from cct_export.specs import ModelSpec

if TYPE_CHECKING:
    import keras

# Path of a weight in Keras, and the step of the plan that contains it.
_STEPS = (
    (r"tokenizer/conv_(\d+)", r"tokenizer/\1/conv"),
    (r"(block_\d+)/(attention/\w+|qkv|projection)", r"\1/attention"),
    (r"pooling/attention", r"pooling"),
)
# Path of a weight, its number of parameters, and whether it is trained.
_Weight = tuple[str, int, bool]


def inspect_architecture(spec: ModelSpec) -> Architecture:
    """Lists the layers of a CCT with their parameters and cost; needs no Keras.

    Args:
        spec: the architecture; its weights are random, as where training starts.

    Raises:
        InvalidModel: the image is too small for the tokenizer.
    """
    random = np.random.default_rng(0)
    weights: list[_Weight] = []

    def initial(path: str, shape: Shape) -> Array:
        fixed = path.startswith("position_embedding/") and spec.positional == "sine"
        weights.append((path, math.prod(shape), not fixed))
        if path.endswith("gamma"):
            return np.ones(shape)
        return np.zeros(shape) if path.endswith(("beta", "bias")) else random.random(shape)

    return _architecture(spec.name, spec, plan_from(spec, initial), weights)


def inspect(model: "keras.Model", *, name: str) -> Architecture:
    """Lists the layers of a model with their parameters and cost.

    Args:
        model: an image classifier.
        name: the source that the user named.
    """
    from cct_export.graph.lowering import lower_model
    from cct_export.model.checkpoint import image_shape, labels
    from cct_export.model.outputs import outputs_of

    if can_lower(model):
        weights = [(each.path, math.prod(each.shape), each.trainable) for each in model.weights]
        return _architecture(name, model.spec, lower(model), weights)
    plan = lower_model(model).plan
    outputs = outputs_of(model)
    return Architecture(
        name,
        image_shape(model),
        outputs[0].classes,
        labels(model),
        _layers(model),
        folded=None if plan is None else _cost(fold(plan)),
        outputs=outputs,
    )


def _architecture(
    name: str, spec: ModelSpec, plan: Plan, weights: Iterable[_Weight]
) -> Architecture:
    cost = _cost(fold(plan))
    layers = _plan_layers(plan, weights)
    return Architecture(
        name, plan.image_shape, spec.classes, spec.labels, layers, spec=spec, folded=cost
    )


def _cost(plan: Plan) -> Cost:
    return Cost(len(plan.steps), plan.parameters, plan.total_macs)


def _plan_layers(plan: Plan, weights: Iterable[_Weight]) -> tuple[Layer, ...]:
    """Returns the steps of the unfolded plan, each with the number of its Keras weights."""
    trainable: Counter[str] = Counter()
    fixed: Counter[str] = Counter()
    for path, size, is_trained in weights:
        parameters = trainable if is_trained else fixed
        parameters[_step_of(path)] += size
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


def _layers(model: "keras.Model") -> tuple[Layer, ...]:
    """Returns the layers of a model that is no CCT; the cost of each is not known."""
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
