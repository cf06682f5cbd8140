"""Finds attention and attention pooling in a plan, whatever operations spell them.

Which value of a tensor comes from where is computed, not matched: the steps between two products
that only move values are run on the indices of the values.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cct_export.graph import steps
from cct_export.graph.interpret import compute
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Dense, MatMul, Projection, Shape, Step

_MOVES = (steps.Reshape, steps.Transpose, steps.Slice, steps.Gather)


def recognize(plan: Plan) -> Plan:
    """Returns the plan with ``Attention`` and ``SequencePool`` in place of what they stand for."""
    for step in plan.steps:
        if isinstance(step, MatMul) and plan.producer(step.output) is step:
            plan = _with(plan, _attention(plan, step) or _matmul_pooling(plan, step))
        elif isinstance(step, steps.Multiply):
            plan = _with(plan, _sum_pooling(plan, step))
    return plan


def _with(plan: Plan, replacement: list[Step] | None) -> Plan:
    """Returns the plan with steps in place of the one that has the last one's output."""
    if not replacement:
        return plan
    plan = plan.replace({replacement[-1].output: replacement})
    needed = {plan.output}
    for step in reversed(plan.steps):
        if step.output in needed:
            needed.update(step.inputs)
    return Plan(plan.image_shape, tuple(step for step in plan.steps if step.output in needed))


@dataclass(frozen=True)
class _Moved:
    """Where the values of a tensor come from.

    Attributes:
        source: name of the tensor that has them.
        indices: of each value there, in row-major order.
        factor: that they were multiplied by.
    """

    source: str
    indices: NDArray[np.int64]
    factor: float = 1.0


def _moved(plan: Plan, name: str) -> _Moved:
    """Follows a tensor back through steps that move its values, or scale all of them alike."""
    path: list[Step] = []
    factor = 1.0
    step = plan.producer(name)
    while step is not None and _moves(step):
        path.append(step)
        name = step.inputs[0]
        step = plan.producer(name)
    shape = plan.shapes[name]
    values = np.arange(math.prod(shape), dtype=np.float64).reshape(1, *shape)
    for step in reversed(path):
        if isinstance(step, steps.Scale):
            factor *= float(step.scale.item())
        else:
            values = compute(step, values)
    return _Moved(name, values[0].astype(np.int64), factor)


def _moves(step: Step) -> bool:
    """Returns whether a step only moves values, or multiplies all by one number."""
    if isinstance(step, steps.Scale):
        return step.scale.size == 1 and not np.any(step.shift)
    return isinstance(step, _MOVES)


def _columns(moved: _Moved, plan: Plan, shape: Shape) -> NDArray[np.int64] | None:
    """Returns which columns of a matrix ``(tokens, columns)`` are the heads' queries.

    Args:
        moved: heads' queries, ``(heads, tokens, size)``.
        plan: the steps.
        shape: of the tokens.

    Returns:
        ``(heads, size)``; None if they are anything else.
    """
    columns = plan.shapes[moved.source][-1]
    indices = moved.indices if moved.indices.ndim == 3 else moved.indices[None]
    if indices.ndim != 3 or indices.shape[1] != shape[0] or len(plan.shapes[moved.source]) != 2:
        return None
    first = indices[:, 0]
    rows = columns * np.arange(shape[0])[None, :, None]
    is_matrix = np.array_equal(indices, first[:, None] + rows) and first.max() < columns
    return first if is_matrix else None


def _projection(plan: Plan, moved: _Moved) -> tuple[str, Projection] | None:
    """Returns the tokens that a projection takes, and the projection of all heads."""
    dense = plan.producer(moved.source)
    if not isinstance(dense, Dense):
        return None
    columns = _columns(moved, plan, plan.shapes[dense.inputs[0]])
    if columns is None:
        return None
    order = columns.reshape(-1)
    bias = np.zeros(dense.kernel.shape[1]) if dense.bias is None else dense.bias
    return dense.inputs[0], Projection(dense.kernel[:, order], bias[order])


def _attention(plan: Plan, product: MatMul) -> list[Step] | None:
    """Returns attention in place of the output projection after ``softmax(q kᵀ) v``."""
    weights = plan.producer(product.inputs[0])
    if not isinstance(weights, steps.Softmax) or product.transpose_b:
        return None
    scaled = _moved(plan, weights.inputs[0])
    scores = plan.producer(scaled.source)
    if not isinstance(scores, MatMul) or not _in_order(scaled.indices):
        return None
    names = (scores.inputs[0], scores.inputs[1], product.inputs[1])
    query, key, value = (_moved(plan, name) for name in names)
    if not scores.transpose_b:
        key = _Moved(key.source, key.indices.swapaxes(-1, -2), key.factor)
    found = [_projection(plan, each) for each in (query, key, value)]
    out = _output_projection(plan, product, value.factor)
    projections = [projection for each in found if each for projection in each[1:]]
    tokens = {each[0] for each in found if each}
    if len(projections) < 3 or len(tokens) > 1 or out is None:
        return None
    attention = steps.Attention(
        out.output,
        tuple(tokens),
        heads=math.prod(query.indices.shape[:-2]),
        scale=scaled.factor * query.factor * key.factor,
        query=projections[0],
        key=projections[1],
        value=projections[2],
        out=Projection(out.kernel, np.zeros(1) if out.bias is None else out.bias),
    )
    return [attention]


def _output_projection(plan: Plan, product: MatMul, value_factor: float) -> Dense | None:
    """Returns the dense layer on the heads' outputs, its rows in the order of heads and sizes."""
    dense = next(_after(plan, product.output), None)
    if not isinstance(dense, Dense):
        return None
    moved = _moved(plan, dense.inputs[0])
    shape = plan.shapes[product.output]
    indices = np.arange(math.prod(shape)).reshape(-1, *shape[-2:])
    expected = indices.transpose(1, 0, 2).reshape(shape[-2], -1)
    if moved.indices.shape != expected.shape or moved.source != product.output:
        return None
    order = np.argsort(moved.indices[0])
    if not np.array_equal(moved.indices[:, order], expected):
        return None
    width = dense.kernel.shape[1]
    bias = np.zeros(width) if dense.bias is None else dense.bias
    kernel = moved.factor * value_factor * dense.kernel[order]
    return Dense(dense.output, dense.inputs, kernel, bias)


def _after(plan: Plan, name: str) -> Iterator[Step]:
    """Yields the first step after a tensor that does more than move its values."""
    step = plan.only_consumer(name)
    while step is not None and _moves(step):
        step = plan.only_consumer(step.output)
    if step is not None:
        yield step


def _in_order(indices: NDArray[np.int64]) -> bool:
    return np.array_equal(indices.reshape(-1), np.arange(indices.size))


def _matmul_pooling(plan: Plan, product: MatMul) -> list[Step] | None:
    """Returns attention pooling in place of ``weights · tokens``, or of its transpose."""
    a, b = (_moved(plan, name) for name in product.inputs)
    if product.transpose_b:
        b = _Moved(b.source, b.indices.swapaxes(-1, -2), b.factor)
    transposed = _Moved(a.source, a.indices.swapaxes(-1, -2), a.factor)
    for weights, tokens in ((a, b), (b, transposed)):
        pool = _sequence_pool(plan, weights, tokens)
        if pool is not None:
            shape = plan.shapes[product.output]
            after = plan.only_consumer(product.output)
            if isinstance(after, steps.Reshape) and after.to == plan.shapes[pool.inputs[0]][1:]:
                return [replace(pool, output=after.output)]
            pooled = replace(pool, output=f"{product.output}/pooled")
            return [pooled, steps.Reshape(product.output, (pooled.output,), shape)]
    return None


def _sum_pooling(plan: Plan, product: steps.Multiply) -> list[Step] | None:
    """Returns attention pooling in place of the sum over ``tokens · weights``."""
    mean = plan.only_consumer(product.output)
    if not isinstance(mean, steps.GlobalPool) or mean.maximum:
        return None
    tokens, weights = (_moved(plan, name) for name in product.inputs)
    pool = _sequence_pool(plan, weights, tokens)
    if pool is None:
        return None
    count = plan.shapes[product.output][0]
    total = plan.only_consumer(mean.output)
    if not isinstance(total, steps.Scale):
        pooled = replace(pool, output=f"{mean.output}/sum")
        factor, shift = np.full(1, 1 / count), np.zeros(1)
        return [pooled, steps.Scale(mean.output, (pooled.output,), factor, shift)]
    scale = total.scale / count
    if np.all(scale == 1) and not np.any(total.shift):
        return [replace(pool, output=total.output)]
    return [replace(pool, output=mean.output), replace(total, scale=scale)]


def _sequence_pool(plan: Plan, weights: _Moved, tokens: _Moved) -> steps.SequencePool | None:
    """Returns the pooling of tokens, if the weights are a softmax of their scores."""
    softmax = plan.producer(weights.source)
    if not isinstance(softmax, steps.Softmax):
        return None
    moved = _moved(plan, softmax.inputs[0])
    scores = plan.producer(moved.source)
    if not isinstance(scores, Dense):
        return None
    shape = plan.shapes[scores.inputs[0]]
    scored = _moved(plan, scores.inputs[0])
    one_score = len(shape) == 2 and scores.kernel.shape[1] == 1
    over_all = plan.shapes[softmax.output][-1] == shape[0]
    same = scored.source == tokens.source and scored.factor == tokens.factor * weights.factor
    in_order = _in_order(moved.indices) and _in_order(weights.indices)
    same_order = np.array_equal(scored.indices.reshape(-1), tokens.indices.reshape(-1))
    if not (one_score and over_all and same and in_order and same_order):
        return None
    bias = None if scores.bias is None else moved.factor * scores.bias
    kernel = moved.factor * scores.kernel[:, 0]
    return steps.SequencePool(scores.output, scores.inputs, kernel, bias)
