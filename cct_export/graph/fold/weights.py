"""Folds of steps beside a convolution or dense layer into its weights."""

from dataclasses import replace
from typing import Any

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import (
    Activation,
    AddConstant,
    Array,
    AveragePool,
    Conv,
    Dense,
    Gather,
    GlobalPool,
    MaxPool,
    Resize,
    Scale,
    Step,
    ZeroPad,
)

# They compute each channel by itself, and all in the same way.
_CHANNELWISE = (AveragePool, GlobalPool, MaxPool, Resize, ZeroPad)
_CEILINGS = {"relu": np.inf, "relu6": 6.0}


def channel_order(plan: Plan) -> Plan:
    """Folds a choice of channels into the convolution or dense layer that follows.

    ``Σ_i x[o(i)] W[i] = Σ_c x[c] Σ_{i: o(i)=c} W[i]``. Steps between that compute each channel by
    itself commute with a permutation, which moves the constants of their channels too. Applied
    where it adds no channel to what follows.
    """
    for gather in plan.steps:
        if isinstance(gather, Gather):
            channels = plan.shapes[gather.inputs[0]][-1]
            moved = _without_gather(plan, gather, channels)
            if moved and channels <= len(gather.order):
                plan = plan.replace({gather.output: [], **{s.output: [s] for s in moved}})
    return plan


def _without_gather(plan: Plan, gather: Gather, channels: int) -> list[Step]:
    """Returns the steps up to the weights that absorb a Gather, for its input; none if none do."""
    moved: list[Step] = []
    source, step = gather.inputs[0], plan.only_consumer(gather.output)
    while step is not None:
        if isinstance(step, Conv | Dense):
            kernel = np.zeros((*step.kernel.shape[:-2], channels, step.kernel.shape[-1]))
            for index, channel in enumerate(gather.order):
                kernel[..., channel, :] += step.kernel[..., index, :]
            return [*moved, replace(step, inputs=(source,), kernel=kernel)]
        constants = _reordered(step, gather.order, channels)
        if constants is None:
            return []
        moved.append(replace(step, inputs=(source,), **constants))
        source, step = step.output, plan.only_consumer(step.output)
    return []


def _reordered(step: Step, order: tuple[int, ...], channels: int) -> dict[str, Any] | None:
    """Returns the constants of a channelwise step for the unordered channels; None for others."""
    if isinstance(step, _CHANNELWISE):
        return {}
    if isinstance(step, Scale):
        constants = {"scale": step.scale, "shift": step.shift}
    elif isinstance(step, AddConstant):
        constants = {"value": step.value}
    else:
        return None
    if all(array.shape[-1] == 1 for array in constants.values()):
        return constants
    if sorted(order) != list(range(channels)):
        return None
    inverse = np.argsort(order)
    return {k: v if v.shape[-1] == 1 else v[..., inverse] for k, v in constants.items()}


def batch_norm(plan: Plan) -> Plan:
    """Folds a scale and shift per output into the weights before it, or into another scale.

    Batch normalization at inference is one: ``s·(x W + b) + t = x (W·s) + (b·s + t)``, with s
    multiplying the columns of W. Likewise ``s·(r·x + u) + t = (s·r)·x + (s·u + t)``.
    """
    for name in [step.output for step in plan.steps]:
        scale = plan.producer(name)
        source = scale and plan.producer(scale.inputs[0])
        if scale is not None and source is not None and plan.only_consumer(source.output):
            merged = _scaled(source, scale)
            if merged is not None:
                plan = plan.replace({source.output: [], name: [replace(merged, output=name)]})
    return plan


def _scaled(source: Step, scale: Step) -> Step | None:
    """Returns one step for a step and the scale that consumes it; None where there is none."""
    second = _per_channel(scale)
    if second is None:
        return None
    factor, shift = second
    if isinstance(source, Conv | Dense) and not source.relu:
        outputs = source.kernel.shape[-1:]
        bias = np.zeros(outputs) if source.bias is None else source.bias
        bias = np.broadcast_to(bias * factor + shift, outputs)
        return replace(source, kernel=source.kernel * factor, bias=bias)
    first = _per_channel(source)
    if first is None:
        return None
    shift = first[1] * factor + shift
    if isinstance(source, AddConstant) and isinstance(scale, AddConstant):
        return replace(source, value=shift)
    return Scale(scale.output, source.inputs, first[0] * factor, shift)


def _per_channel(step: Step | None) -> tuple[Array, Array] | None:
    """Returns scale and shift of a step, each one value or one per channel; None of others."""
    if isinstance(step, Scale):
        return step.scale, step.shift
    if isinstance(step, AddConstant) and step.value.size == step.value.shape[-1]:
        return np.ones(1), step.value.reshape(-1)
    return None


def relu(plan: Plan) -> Plan:
    """Folds ReLU and ReLU6 into the convolution or dense layer before it.

    The same function ``min(max(x W + b, 0), c)``, as one operator: engines clip a sum before they
    store it, and the integers of a quantized one need not span negative values.
    """
    for step in plan.steps:
        if not (isinstance(step, Activation) and step.function in _CEILINGS):
            continue
        sums = plan.producer(step.inputs[0])
        if not isinstance(sums, Conv | Dense) or sums.relu:
            continue
        if plan.only_consumer(sums.output):
            ceiling = _CEILINGS[step.function]
            clipped = replace(sums, output=step.output, relu=True, ceiling=ceiling)
            plan = plan.replace({sums.output: [], step.output: [clipped]})
    return plan
