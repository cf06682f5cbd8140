"""Folds of layer normalization and sequence pooling."""

from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import (
    Attention,
    Dense,
    GlobalPool,
    LayerNorm,
    Projection,
    SequencePool,
    Step,
)


def norm_affine(plan: Plan) -> Plan:
    """Folds gamma and beta of a layer normalization into the dense layers that consume it.

    ``(n·γ + β) W + b = n (γ·W) + (β W + b)``, with γ multiplying the rows of W. Sequence pooling
    and the mean of all tokens pass them on: their weights sum to 1, so
    ``Σ w (n·γ + β) = (Σ w n)·γ + β``. Applied where every consumer can absorb them; a residual sum
    cannot.
    """
    for norm in plan.steps:
        if isinstance(norm, LayerNorm) and norm.output != plan.output:
            consumers = [absorb_affine(norm, step) for step in _affine_consumers(plan, norm)]
            absorbed = {step.output: [step] for step in consumers if step is not None}
            if absorbed and len(absorbed) == len(consumers):
                bare = replace(norm, gamma=None, beta=None)
                plan = plan.replace({norm.output: [bare], **absorbed})
    return plan


def _affine_consumers(plan: Plan, norm: LayerNorm) -> list[Step]:
    """Returns the steps that gamma and beta reach, past a mean of the tokens."""
    consumers: list[Step] = []
    for step in plan.consumers(norm.output):
        consumers.append(step)
        if isinstance(step, SequencePool | GlobalPool):
            pooled = plan.consumers(step.output)
            if step.output == plan.output or not all(isinstance(s, Dense) for s in pooled):
                return []
            consumers += pooled
    return consumers


def absorb_affine(norm: LayerNorm, step: Step) -> Step | None:
    """Returns ``step`` for inputs without gamma and beta; None if it cannot absorb them."""
    if isinstance(step, Attention):
        if step.key is None or step.value is None:
            return None
        return replace(
            step,
            query=_affine(norm, step.query),
            key=_affine(norm, step.key),
            value=_affine(norm, step.value),
        )
    if isinstance(step, GlobalPool):
        return None if step.maximum else step
    if isinstance(step, Dense | SequencePool):
        width = 1 if isinstance(step, SequencePool) else step.kernel.shape[1]
        bias = np.zeros(width) if step.bias is None else step.bias
        return replace(step, **_affine(norm, Projection(step.kernel, bias))._asdict())
    return None


def _affine(norm: LayerNorm, dense: Projection) -> Projection:
    """Returns a dense layer with gamma and beta folded in."""
    kernel, bias = dense
    if norm.beta is not None:
        bias = norm.beta @ kernel + bias
    if norm.gamma is not None:
        kernel = (kernel.T * norm.gamma).T  # scales the rows of a matrix, or a vector
    return Projection(kernel, bias)


def pooling_bias(plan: Plan) -> Plan:
    """Drops the bias of sequence pooling's scores.

    It is added to the score of every token, and a softmax over the tokens is invariant to that.
    """
    pools = [step for step in plan.steps if isinstance(step, SequencePool)]
    return plan.replace({pool.output: [replace(pool, bias=None)] for pool in pools})
