"""Folds of layer normalization and sequence pooling."""

from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import (
    Add,
    AddConstant,
    Array,
    Attention,
    Dense,
    GlobalPool,
    LayerNorm,
    Mean,
    Projection,
    SequencePool,
    Step,
    Subtract,
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
            consumers = [_absorb_affine(norm, step) for step in _affine_consumers(plan, norm)]
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


def _absorb_affine(norm: LayerNorm, step: Step) -> Step | None:
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


def centred_residual(plan: Plan) -> Plan:
    """Centres the residual stream at its sources, so that normalizations need no mean.

    Where only normalizations consume a stream of sums, its mean over the width never matters: each
    normalization subtracts it. So every addend may be centred at its source, in the columns of
    weights and in constants; only addends without weights need a step that centres them
    (arXiv:2401.15024, section 3.2). Applied where it saves a subtraction.
    """
    streams = (stream for stream in _residual_streams(plan) if _is_centrable(plan, stream))
    tensors: set[str] = set().union(*streams)
    norms = [s for s in plan.steps if isinstance(s, LayerNorm) and s.inputs[0] in tensors]
    replacements: dict[str, list[Step]] = {
        norm.output: [replace(norm, centred=True)] for norm in norms
    }
    subtractions = 0
    for step in plan.steps:
        if step.output in tensors and not isinstance(step, Add):
            centred = _centred_step(step)
            subtractions += len(centred) > 1
            replacements[step.output] = centred
    return plan.replace(replacements) if subtractions < len(norms) else plan


def _residual_streams(plan: Plan) -> list[set[str]]:
    """Groups all tensors into streams: sums connect their addends and their result.

    Both addends of a sum must be centred, or neither: a stream is centred as a whole.
    """
    streams: list[set[str]] = [{plan.INPUT}]
    for step in plan.steps:
        stream = {step.output}
        if isinstance(step, Add | AddConstant):
            connected = [other for other in streams if not other.isdisjoint(step.inputs)]
            streams = [other for other in streams if other not in connected]
            stream = stream.union(*connected)
        streams.append(stream)
    return streams


def _is_centrable(plan: Plan, stream: set[str]) -> bool:
    """Returns whether sums and normalizations are the only consumers of a stream."""
    consumers = [plan.consumers(name) for name in stream]
    return (
        stream.isdisjoint((plan.INPUT, plan.output))
        and all(consumers)
        and all(isinstance(s, LayerNorm | Add | AddConstant) for steps in consumers for s in steps)
    )


def _centred_step(step: Step) -> list[Step]:
    """Returns the steps that produce the centred output of a step: one where weights take it."""
    if isinstance(step, AddConstant):
        return [replace(step, value=_centred(step.value))]
    if isinstance(step, Dense) and step.bias is not None and not step.relu:
        return [replace(step, kernel=_centred(step.kernel), bias=_centred(step.bias))]
    if isinstance(step, Attention):
        out = Projection(_centred(step.out.kernel), _centred(step.out.bias))
        return [replace(step, out=out)]
    source, mean = f"{step.output}/uncentred", f"{step.output}/mean"
    return [
        replace(step, output=source),
        Mean(mean, (source,)),
        Subtract(step.output, (source, mean)),
    ]


def _centred(array: Array) -> Array:
    centred: Array = array - array.mean(-1, keepdims=True)
    return centred
