"""Folds of what layer normalization and sequence pooling hand on."""

from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import (
    Add,
    AddConstant,
    Array,
    Attention,
    Dense,
    LayerNorm,
    Mean,
    Projection,
    SequencePool,
    Step,
    Subtract,
)


def norm_affine(plan: Plan) -> Plan:
    """Gamma and beta of a layer normalization go into the dense layers that read it.

    ``(n·γ + β) W + b = n (γ·W) + (β W + b)``, with γ multiplying the rows of W. Sequence pooling
    hands them on: its weights sum to 1, so ``Σ w (n·γ + β) = (Σ w n)·γ + β``. Done where every
    reader can take them; a residual sum cannot.
    """
    for norm in plan.steps:
        if isinstance(norm, LayerNorm) and norm.output != plan.output:
            takers = _takers(plan, norm)
            changed = {step.output: [_with_affine(norm, step)] for step in takers}
            if takers:
                bare = replace(norm, gamma=None, beta=None)
                plan = plan.replace({norm.output: [bare], **changed})
    return plan


def _takers(plan: Plan, norm: LayerNorm) -> list[Step]:
    """Returns the steps that take gamma and beta over; none if one of the readers cannot."""
    takers: list[Step] = []
    for reader in plan.consumers(norm.output):
        takers.append(reader)
        if isinstance(reader, SequencePool):
            behind = plan.consumers(reader.output)
            if reader.output == plan.output or not all(isinstance(step, Dense) for step in behind):
                return []
            takers += behind
    return takers if all(map(_can_take, takers)) else []


def _can_take(step: Step) -> bool:
    if isinstance(step, Attention):
        return step.key is not None and step.value is not None
    return isinstance(step, Dense | SequencePool)


def _with_affine(norm: LayerNorm, step: Step) -> Step:
    """Returns ``step`` for inputs without gamma and beta."""
    if isinstance(step, Attention):
        parts = {"query": step.query, "key": step.key, "value": step.value}
        return replace(step, **{name: _affine(norm, part) for name, part in parts.items()})  # type: ignore[arg-type]
    assert isinstance(step, Dense | SequencePool), "one that cannot take them"
    width = 1 if isinstance(step, SequencePool) else step.kernel.shape[1]
    bias = np.zeros(width) if step.bias is None else step.bias
    return replace(step, **_affine(norm, Projection(step.kernel, bias))._asdict())


def _affine(norm: LayerNorm, dense: Projection) -> Projection:
    """Returns a dense layer that takes over gamma and beta."""
    kernel, bias = dense
    if norm.beta is not None:
        bias = norm.beta @ kernel + bias
    if norm.gamma is not None:
        kernel = _rows_scaled(kernel, norm.gamma)
    return Projection(kernel, bias)


def _rows_scaled(kernel: Array, gamma: Array) -> Array:
    """Returns ``(width, …)`` with each row multiplied."""
    scaled: Array = (kernel.T * gamma).T
    return scaled


def pooling_bias(plan: Plan) -> Plan:
    """The bias of sequence pooling's scores drops out.

    It is added to the score of every token, and a softmax over the tokens does not see that.
    """
    changed = {
        step.output: [replace(step, bias=None)]
        for step in plan.steps
        if isinstance(step, SequencePool)
    }
    return plan.replace(changed)


def centred_residual(plan: Plan) -> Plan:
    """The residual stream is centred once, and no normalization has to subtract a mean.

    Where normalizations alone read a stream of sums, its mean over the width never matters: each
    subtracts it. So what is added to the stream may be centred at its source, in the columns of
    weights and in constants, and only what comes from elsewhere is centred by a step
    (arXiv:2401.15024, section 3.2). Done where it saves a subtraction.
    """
    stream = _stream(plan)
    norms = [s for s in plan.steps if isinstance(s, LayerNorm) and s.inputs[0] in stream]
    changed: dict[str, list[Step]] = {norm.output: [replace(norm, centred=True)] for norm in norms}
    centrings = 0
    for step in plan.steps:
        if step.output not in stream or isinstance(step, Add):
            continue
        if isinstance(step, AddConstant):
            changed[step.output] = [replace(step, value=_centred(step.value))]
        elif isinstance(step, Dense) and step.bias is not None:
            dense = Projection(_centred(step.kernel), _centred(step.bias))
            changed[step.output] = [replace(step, **dense._asdict())]
        elif isinstance(step, Attention):
            out = Projection(_centred(step.out.kernel), _centred(step.out.bias))
            changed[step.output] = [replace(step, out=out)]
        else:
            centrings += 1
            source, mean = f"{step.output}/uncentred", f"{step.output}/mean"
            changed[step.output] = [
                replace(step, output=source),
                Mean(mean, (source,)),
                Subtract(step.output, (source, mean)),
            ]
    return plan.replace(changed) if centrings < len(norms) else plan


def _stream(plan: Plan) -> set[str]:
    """Returns the tensors that nothing but normalizations and sums of such tensors reads."""
    stream = {step.output for step in plan.steps if step.output != plan.output}
    while True:
        left = {
            name
            for name in stream
            if plan.consumers(name)
            and all(
                isinstance(reader, LayerNorm)
                or (isinstance(reader, Add | AddConstant) and reader.output in stream)
                for reader in plan.consumers(name)
            )
            # Both parts of a sum are centred, or neither.
            and not (
                isinstance(maker := plan.producer(name), Add | AddConstant)
                and not stream.issuperset(maker.inputs)
            )
        }
        if left == stream:
            return stream
        stream = left


def _centred(array: Array) -> Array:
    centred: Array = array - array.mean(-1, keepdims=True)
    return centred
