"""Rewrites of a quantized plan that ONNX Runtime computes faster."""

import math
from dataclasses import dataclass, replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan
from cct_export.graph.steps import Dense, Shape, Step

_BY_HEAD = (1, 0, 2)
_TRANSPOSED_BY_HEAD = (1, 2, 0)


@dataclass(frozen=True, eq=False)
class PackedAttention(Dense):
    """Multi-head attention with one kernel for queries, keys and values, without its output layer.

    Attributes:
        heads: number of heads.
    """

    heads: int = 1

    def shape(self, *inputs: Shape) -> Shape:
        """Returns ``(tokens, heads · size)``."""
        return (*inputs[0][:-1], self.kernel.shape[1] // 3)


def with_relu_after_pools(quantized: QuantizedPlan) -> QuantizedPlan:
    """Returns the plan with ReLU after the pool of a convolution whose sums are floats.

    The maximum of what ReLU leaves is what it leaves of the maximum, and there are fewer of these.
    ONNX Runtime would move the quantization of a pool's output before the pool, which it computes
    in floats ten times as fast; it does not move it before a ReLU.
    """
    plan = quantized.plan
    replacements: dict[str, list[Step]] = {}
    for pool in plan.steps:
        conv = plan.producer(pool.inputs[0]) if isinstance(pool, steps.MaxPool) else None
        if not isinstance(conv, steps.Conv) or plan.only_consumer(conv.output) is not pool:
            continue
        inputs = quantized.config(conv).inputs
        quantized_next = pool.output in quantized.qparams
        if not conv.relu or conv.ceiling != math.inf or inputs == "static":
            continue
        if inputs == "dynamic" or quantized_next:
            maxima = f"{pool.output}/maxima"
            relu = steps.Activation(pool.output, (maxima,), "relu")
            replacements[conv.output] = [replace(conv, relu=False)]
            replacements[pool.output] = [replace(pool, output=maxima), relu]
    return replace(quantized, plan=plan.replace(replacements))


def with_packed_attention(quantized: QuantizedPlan) -> QuantizedPlan:
    """Returns the plan with attention of integer projections as a step each, where it is one."""
    replacements: dict[str, list[Step]] = {}
    configs = dict(quantized.configs)
    for end in quantized.plan.steps:
        parts = _attention(quantized.plan, end)
        if parts and _is_packed(quantized, parts):
            dense, split = parts[-1], parts[0]
            assert isinstance(dense, Dense)
            bias = np.zeros(dense.kernel.shape[1]) if dense.bias is None else dense.bias
            heads = quantized.plan.shapes[split.inputs[0]][0]
            packed = PackedAttention(
                end.output, dense.inputs, dense.kernel, bias, dense.relu, dense.ceiling, heads
            )
            replacements |= {step.output: [] for step in parts}
            replacements[end.output] = [packed]
            configs[end.output] = configs.pop(dense.output)
    return replace(quantized, plan=quantized.plan.replace(replacements), configs=configs)


def _is_packed(quantized: QuantizedPlan, parts: list[Step]) -> bool:
    """Returns whether the projection alone has integers, and nothing else reads any part."""
    *others, dense = parts
    config = quantized.config(dense)
    integer = config.inputs == "static" and not config.quantized_output
    return (
        integer
        and config.weights is not None
        and not any(quantized.config(step).has_integers for step in others)
        and not any(step.output in quantized.qparams for step in parts)
        and all(quantized.plan.only_consumer(step.output) for step in others)
        and len(quantized.plan.consumers(dense.output)) == 3
    )


def _attention(plan: Plan, end: Step) -> list[Step]:
    """Returns the steps before a Reshape that ends an attention, its projection last; else none."""
    if not isinstance(end, steps.Reshape):
        return []
    merge = plan.producer(end.inputs[0])
    sums = _product(plan, merge.inputs[0]) if merge and _has_order(merge, _BY_HEAD) else None
    softmax = sums and plan.producer(sums.inputs[0])
    scores = isinstance(softmax, steps.Softmax) and _product(plan, softmax.inputs[0])
    if not (merge and sums and softmax and scores):
        return []
    query, key = (
        _head(plan, name, order)
        for name, order in zip(scores.inputs, (_BY_HEAD, _TRANSPOSED_BY_HEAD), strict=True)
    )
    value = _head(plan, sums.inputs[1], _BY_HEAD)
    slices = [s for part in (query, key, value) for s in part if isinstance(s, steps.Slice)]
    dense = plan.producer(slices[0].inputs[0]) if len(slices) == 3 else None
    if not isinstance(dense, Dense) or plan.shapes[end.output] != plan.shapes[slices[0].output]:
        return []
    width = dense.kernel.shape[1] // 3
    for position, part in enumerate(slices):
        bounds = (position * width, (position + 1) * width)
        if part.inputs != (dense.output,) or (part.start, part.stop) != bounds:
            return []
    return [merge, sums, softmax, scores, *query, *key, *value, dense]


def _has_order(step: Step, order: tuple[int, ...]) -> bool:
    return isinstance(step, steps.Transpose) and step.order == order


def _product(plan: Plan, name: str) -> steps.MatMul | None:
    step = plan.producer(name)
    return step if isinstance(step, steps.MatMul) and not step.transpose_b else None


def _head(plan: Plan, name: str, order: tuple[int, ...]) -> list[Step]:
    """Returns the steps that split a slice into heads, from the last; none if they do not."""
    transpose = plan.producer(name)
    if transpose is None or not _has_order(transpose, order):
        return []
    split = plan.producer(transpose.inputs[0])
    part = plan.producer(split.inputs[0]) if isinstance(split, steps.Reshape) else None
    return [transpose, split, part] if split and isinstance(part, steps.Slice) else []
