"""Attention and sequence pooling as the products and reshapes that a format has.

The layout is chosen here. Where every head's keys are the tokens themselves, scores of all heads
are one product of ``(tokens · heads, size)`` with the tokens, and ``(tokens, heads · size)`` has
the same numbers in the same order: no transposition. Otherwise heads become a leading axis.
"""

from dataclasses import replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Attention, LayerNorm, Projection, Scale, SequencePool, Step


def expand(plan: Plan, normalization: bool = True) -> Plan:
    """Returns the plan in steps that formats have: no Attention, no SequencePool.

    Args:
        plan: folded or not.
        normalization: whether the format has LayerNorm.
    """
    changed: dict[str, list[Step]] = {}
    for step in plan.steps:
        if isinstance(step, Attention):
            changed[step.output] = _AttentionSteps(step, plan.shapes[step.inputs[0]]).all()
        elif isinstance(step, SequencePool):
            changed[step.output] = _pooling_steps(step, plan.shapes[step.inputs[0]])
        elif isinstance(step, LayerNorm) and not normalization:
            changed[step.output] = _normalization_steps(step)
    return _apart(plan.replace(changed))


def _apart(plan: Plan) -> Plan:
    """Returns the plan with every shift as a step of its own."""
    changed: dict[str, list[Step]] = {}
    for step in plan.steps:
        if isinstance(step, Scale) and np.any(step.shift):
            scaled = f"{step.output}/scaled"
            changed[step.output] = [
                replace(step, output=scaled, shift=np.zeros(1)),
                steps.AddConstant(step.output, (scaled,), step.shift),
            ]
    return plan.replace(changed)


def _normalization_steps(step: LayerNorm) -> list[Step]:
    name, (x,) = step.output, step.inputs
    made: list[Step] = []
    if not step.centred:
        made += [
            steps.Mean(f"{name}/mean", (x,)),
            steps.Subtract(f"{name}/centred", (x, f"{name}/mean")),
        ]
        x = f"{name}/centred"
    made += [
        steps.MeanSquare(f"{name}/variance", (x,)),
        steps.Rsqrt(f"{name}/inverse", (f"{name}/variance",), step.epsilon),
    ]
    scaled = steps.Multiply(f"{name}/bare", (x, f"{name}/inverse"))
    if step.gamma is None and step.beta is None:
        return [*made, replace(scaled, output=name)]
    gamma = np.ones(1) if step.gamma is None else step.gamma
    beta = np.zeros(1) if step.beta is None else step.beta
    return [*made, scaled, steps.Scale(name, (scaled.output,), gamma, beta)]


def _pooling_steps(step: SequencePool, shape: steps.Shape) -> list[Step]:
    tokens, width = shape
    name, (x,) = step.output, step.inputs
    return [
        steps.Dense(f"{name}/scores", (x,), step.kernel[:, None], step.bias),
        steps.Reshape(f"{name}/row", (f"{name}/scores",), (1, tokens)),
        steps.Softmax(f"{name}/weights", (f"{name}/row",)),
        steps.MatMul(f"{name}/sum", (f"{name}/weights", x)),
        steps.Reshape(name, (f"{name}/sum",), (width,)),
    ]


class _AttentionSteps:
    """One attention, spelled out."""

    def __init__(self, step: Attention, shape: steps.Shape) -> None:
        self.step = step
        self.tokens, self.width = shape
        self.x = step.inputs[0]
        self.steps: list[Step] = []

    def _add(self, kind: type[Step], name: str, *inputs: str, **fields: object) -> str:
        output = f"{self.step.output}/{name}" if name else self.step.output
        self.steps.append(kind(output, inputs, **fields))
        return output

    def _dense(self, name: str, x: str, projection: Projection) -> str:
        bias = projection.bias if np.any(projection.bias) else None
        return self._add(steps.Dense, name, x, kernel=projection.kernel, bias=bias)

    def all(self) -> list[Step]:
        """Returns the steps; the last has the name of the attention."""
        query, key, value = self._projections()
        free_scores = self.step.key is None or self.step.heads == 1
        free_sums = self.step.value is None or self.step.heads == 1
        scores = self._free_scores(query, key) if free_scores else self._head_scores(query, key)
        weights = self._add(steps.Softmax, "weights", scores)
        if free_scores != free_sums:
            weights = self._swap_layout(weights, free_scores)
        together = self._free_sums(weights, value) if free_sums else self._head_sums(weights, value)
        self._dense("", together, self.step.out)
        return self.steps

    def _projections(self) -> tuple[str, str, str]:
        """Adds query, key and value; returns their tensors, the query's scaled."""
        named = {"query": self.step.query, "key": self.step.key, "value": self.step.value}
        parts = {name: part for name, part in named.items() if part is not None}
        if self.step.fused:
            made = self._columns(parts)
        else:
            made = {name: self._dense(name, self.x, part) for name, part in parts.items()}
        query = made["query"]
        if self.step.scale != 1:
            scale, shift = np.array([self.step.scale]), np.zeros(1)
            query = self._add(steps.Scale, "scaled_query", query, scale=scale, shift=shift)
        return query, made.get("key", self.x), made.get("value", self.x)

    def _columns(self, parts: dict[str, Projection]) -> dict[str, str]:
        """Adds one product for all ``parts``; returns the tensor of each."""
        kernel, bias = (np.concatenate(arrays, -1) for arrays in zip(*parts.values(), strict=True))
        whole = self._dense("qkv", self.x, Projection(kernel, bias))
        made, start = {}, 0
        for name, part in parts.items():
            stop = start + len(part.bias)
            made[name] = self._add(steps.Slice, name, whole, start=start, stop=stop)
            start = stop
        return made

    def _free_scores(self, query: str, key: str) -> str:
        """Returns scores ``(tokens · heads, tokens)``."""
        size = self.step.query.kernel.shape[1] // self.step.heads
        rows = self._add(steps.Reshape, "query_rows", query, to=(self._rows, size))
        return self._add(steps.MatMul, "scores", rows, key, transpose_b=True)

    def _free_sums(self, weights: str, value: str) -> str:
        """Returns sums ``(tokens, heads · size)`` by weights ``(tokens · heads, tokens)``."""
        rows = self._add(steps.MatMul, "sums", weights, value)
        return self._add(
            steps.Reshape, "together", rows, to=(self.tokens, self.step.out.kernel.shape[0])
        )

    def _head_scores(self, query: str, key: str) -> str:
        """Returns scores ``(heads, tokens, tokens)``."""
        rows = self._split("query", query, (1, 0, 2))
        columns = self._split("key", key, (1, 2, 0))
        return self._add(steps.MatMul, "scores", rows, columns)

    def _head_sums(self, weights: str, value: str) -> str:
        """Returns sums ``(tokens, heads · size)`` by weights ``(heads, tokens, tokens)``."""
        sums = self._add(steps.MatMul, "sums", weights, self._split("value", value, (1, 0, 2)))
        rows = self._add(steps.Transpose, "sums_by_token", sums, order=(1, 0, 2))
        return self._add(
            steps.Reshape, "together", rows, to=(self.tokens, self.step.out.kernel.shape[0])
        )

    def _split(self, name: str, x: str, order: tuple[int, ...]) -> str:
        """Returns ``(tokens, heads · size)`` with the heads as an axis, in an order."""
        part = getattr(self.step, name)
        to = (self.tokens, self.step.heads, len(part.bias) // self.step.heads)
        apart = self._add(steps.Reshape, f"{name}_apart", x, to=to)
        return self._add(steps.Transpose, f"{name}_heads", apart, order=order)

    def _swap_layout(self, weights: str, free: bool) -> str:
        """Returns weights ``(tokens · heads, tokens)`` as ``(heads, tokens, tokens)``, or back."""
        apart = (self.tokens, self.step.heads, self.tokens)
        if free:
            split = self._add(steps.Reshape, "weights_apart", weights, to=apart)
            return self._add(steps.Transpose, "weights_heads", split, order=(1, 0, 2))
        rows = self._add(steps.Transpose, "weights_by_token", weights, order=(1, 0, 2))
        return self._add(steps.Reshape, "weight_rows", rows, to=(self._rows, self.tokens))

    @property
    def _rows(self) -> int:
        return self.tokens * self.step.heads
