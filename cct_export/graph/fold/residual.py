"""Folds of the residual stream: the sums that normalizations read."""

from dataclasses import replace

import numpy as np

from cct_export.graph.fold.attention import orthogonal_matrix
from cct_export.graph.fold.norms import absorb_affine
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


def residual_sources(plan: Plan) -> Plan:
    """Makes weights the source of every addend of a residual stream.

    A normalization whose output is an addend passes ``n·γ + β`` on: that becomes a dense layer with
    the diagonal matrix of γ, and its other consumers absorb both. Any other addend without weights
    gets the identity matrix. A centred or rotated stream is then one in the weights alone. It costs
    multiplications, and saves integer arithmetic the rounding of several elementwise operations.
    """
    for norm in plan.steps:
        if isinstance(norm, LayerNorm) and not (norm.gamma is None and norm.beta is None):
            plan = _with_affine_source(plan, norm)
    for stream in _residual_streams(plan):
        if _norms_of(plan, stream) and _is_centrable(plan, stream):
            sources = [s for s in plan.steps if s.output in stream and not isinstance(s, Add)]
            plan = plan.replace({s.output: _weighted_source(plan, s) for s in sources})
    return plan


def _with_affine_source(plan: Plan, norm: LayerNorm) -> Plan:
    """Returns the plan with γ and β of a norm in dense layers, if its output is an addend."""
    consumers = plan.consumers(norm.output)
    sums = [step for step in consumers if isinstance(step, Add)]
    absorbed = [absorb_affine(norm, step) for step in consumers if step not in sums]
    if not sums or norm.output == plan.output:
        return plan
    width = plan.shapes[norm.output][-1]
    gamma = np.ones(width) if norm.gamma is None else norm.gamma
    beta = np.zeros(width) if norm.beta is None else norm.beta
    source = Dense(f"{norm.output}/affine", (norm.output,), np.diag(gamma), beta)
    renamed = {norm.output: source.output}
    replacements: dict[str, list[Step]] = {
        norm.output: [replace(norm, gamma=None, beta=None), source]
    }
    for step in absorbed:
        if step is None:
            return plan
        replacements[step.output] = [step]
    for step in sums:
        inputs = tuple(renamed.get(name, name) for name in step.inputs)
        replacements[step.output] = [replace(step, inputs=inputs)]
    changed = plan.replace(replacements)
    stream = next(s for s in _residual_streams(changed) if source.output in s)
    return changed if _is_centrable(changed, stream) else plan


def _weighted_source(plan: Plan, step: Step) -> list[Step]:
    """Returns the steps of an addend, the last with weights and a bias."""
    if isinstance(step, AddConstant | Attention):
        return [step]
    if isinstance(step, Dense) and not step.relu:
        return [
            step if step.bias is not None else replace(step, bias=np.zeros(step.kernel.shape[1]))
        ]
    width = plan.shapes[step.output][-1]
    bare = replace(step, output=f"{step.output}/bare")
    return [bare, Dense(step.output, (bare.output,), np.eye(width), np.zeros(width))]


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


def rotation(plan: Plan) -> Plan:
    """Rotates every residual stream, in the weights around it.

    For an orthogonal matrix R that maps the mean direction ``(1, …, 1)`` to itself, a normalization
    without gamma and beta of ``x R`` is that of x, times R. So the sources of a stream are
    multiplied by R, and the weights that read its normalizations by ``Rᵀ``. Every channel is then
    a mixture of all, without outliers, and has nearly the same range, which 8 bits use better
    (QuaRot, arXiv:2404.00456; SpinQuant, arXiv:2405.16406).
    """
    for index, stream in enumerate(_residual_streams(plan)):
        norms = _norms_of(plan, stream)
        if norms and _is_centrable(plan, stream):
            width = plan.shapes[norms[0].output][-1]
            rotated = _rotated_stream(plan, stream, norms, rotation_matrix(width, seed=index))
            plan = plan if rotated is None else plan.replace(rotated)
    return plan


def rotation_matrix(width: int, *, seed: int) -> Array:
    """Returns an orthogonal matrix, ``(width, width)``, that keeps the mean direction.

    It is random on all directions that are orthogonal to ``(1, …, 1)``.
    """
    mean, first = np.full(width, width**-0.5), np.eye(width)[0]
    normal = mean - first
    # A reflection that exchanges the mean direction and the first axis.
    length = normal @ normal
    reflection = np.eye(width) - (2 / length * np.outer(normal, normal) if length else 0)
    inner = np.eye(width)
    inner[1:, 1:] = orthogonal_matrix(width - 1, seed=seed)
    matrix: Array = reflection @ inner @ reflection
    return matrix


def _norms_of(plan: Plan, stream: set[str]) -> list[LayerNorm]:
    return [s for s in plan.steps if isinstance(s, LayerNorm) and s.inputs[0] in stream]


def _rotated_stream(
    plan: Plan, stream: set[str], norms: list[LayerNorm], matrix: Array
) -> dict[str, list[Step]] | None:
    """Returns the steps around a stream for its rotation; None if one cannot absorb it."""
    sources = [s for s in plan.steps if s.output in stream and not isinstance(s, Add)]
    readers: list[Step] = []
    for norm in norms:
        if norm.gamma is not None or norm.beta is not None or norm.output == plan.output:
            return None
        for step in plan.consumers(norm.output):
            readers.append(step)
            if isinstance(step, SequencePool | GlobalPool):
                readers += plan.consumers(step.output)
    rotated: dict[str, Step] = {}
    for step in readers:
        read = _rotated_input(rotated.get(step.output, step), matrix)
        if read is None or (step.output == plan.output and not isinstance(step, Dense)):
            return None
        rotated[step.output] = read
    for step in sources:
        source = _rotated_output(rotated.get(step.output, step), matrix)
        if source is None:
            return None
        rotated[step.output] = source
    return {name: [step] for name, step in rotated.items()}


def _rotated_output(step: Step, matrix: Array) -> Step | None:
    """Returns a step whose output is rotated; None if it has no weights for it."""
    if isinstance(step, AddConstant):
        width = len(matrix)
        return replace(
            step, value=np.broadcast_to(step.value, (*step.value.shape[:-1], width)) @ matrix
        )
    if isinstance(step, Dense) and step.bias is not None and not step.relu:
        return replace(step, kernel=step.kernel @ matrix, bias=step.bias @ matrix)
    if isinstance(step, Attention):
        return replace(step, out=Projection(step.out.kernel @ matrix, step.out.bias @ matrix))
    return None


def _rotated_input(step: Step, matrix: Array) -> Step | None:
    """Returns a step that reads rotated tokens; None if it has no weights for it."""
    if isinstance(step, Dense | SequencePool):
        return replace(step, kernel=matrix.T @ step.kernel)
    if isinstance(step, GlobalPool):
        return None if step.maximum else step
    return _rotated_attention(step, matrix) if isinstance(step, Attention) else None


def _rotated_attention(step: Attention, matrix: Array) -> Attention:
    """Returns attention over rotated tokens, which may be its keys and values."""
    width = len(matrix)

    def reading(projection: Projection) -> Projection:
        return Projection(matrix.T @ projection.kernel, projection.bias)

    query, out = reading(step.query), step.out
    if step.key is None:  # each head's query is multiplied with the tokens
        kernel, bias = (part.reshape(-1, step.heads, width) @ matrix for part in query)
        query = Projection(kernel.reshape(width, -1), bias.reshape(-1))
    if step.value is None:  # each head's output is a sum of tokens
        kernel = matrix.T @ out.kernel.reshape(step.heads, width, -1)
        out = Projection(kernel.reshape(out.kernel.shape), out.bias)
    return replace(
        step,
        query=query,
        key=None if step.key is None else reading(step.key),
        value=None if step.value is None else reading(step.value),
        out=out,
    )
