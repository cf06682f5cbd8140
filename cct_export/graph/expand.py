"""Expands steps that formats have no operators for to primitive steps.

This module chooses the layout of attention. Where every head's keys are the tokens themselves, the
scores of all heads are one product of ``(tokens · heads, size)`` with the tokens, and
``(tokens, heads · size)`` reshapes to that without a transposition. Otherwise heads become a
leading axis.
"""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.interpret import padded_share
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Attention, LayerNorm, Projection, Scale, SequencePool, Step
from cct_export.graph.windows import same_pads

# Softmaxes of as many weights are composed of their parts, for formats whose own is too coarse.
MANY_WEIGHTS = 32


def expand(
    plan: Plan,
    layer_norm: bool = True,
    softmax: bool = True,
    activations: Collection[str] = steps.ACTIVATIONS,
    uneven_means: bool = True,
) -> Plan:
    """Returns the plan in primitive steps: no Attention, no SequencePool, no global maximum.

    Args:
        plan: folded or not.
        layer_norm: keep LayerNorm, for formats that have it as an operator.
        softmax: keep Softmax; else one of ``MANY_WEIGHTS`` or more is composed of exponentials and
            their sum, unless it is the output.
        activations: keep these functions; silu, hard-silu and hard-sigmoid can be composed.
        uneven_means: keep average pools whose padding is not that of TensorFlow's SAME rule.
    """
    replacements: dict[str, list[Step]] = {}
    for step in plan.steps:
        shape = plan.shapes[step.inputs[0]]
        if isinstance(step, Attention):
            replacements[step.output] = _AttentionExpansion(step, shape).run()
        elif isinstance(step, SequencePool):
            replacements[step.output] = _pooling_steps(step, shape)
        elif isinstance(step, LayerNorm) and not layer_norm:
            replacements[step.output] = _layer_norm_steps(step)
        elif isinstance(step, steps.Activation):
            replacements[step.output] = _activation_steps(step, activations)
        elif isinstance(step, steps.GlobalPool) and step.maximum:
            replacements[step.output] = _global_maximum_steps(step, shape)
        elif isinstance(step, steps.AveragePool) and not uneven_means:
            replacements[step.output] = _mean_steps(step, shape)
    plan = plan.replace(replacements)
    if not softmax:
        replacements = {
            step.output: _softmax_steps(step, plan.shapes[step.output][-1])
            for step in plan.steps[:-1]
            if isinstance(step, steps.Softmax) and plan.shapes[step.output][-1] >= MANY_WEIGHTS
        }
        plan = plan.replace(replacements)
    return _separate_shifts(plan)


def is_same_padding(step: steps.MaxPool | steps.AveragePool, shape: steps.Shape) -> bool:
    """Returns whether a pool pads its input, of this shape, by TensorFlow's SAME rule."""
    return step.pads == tuple(map(same_pads, shape[:2], step.size, step.strides))


def _activation_steps(step: steps.Activation, activations: Collection[str]) -> list[Step]:
    """Returns the steps of a function: those of ``activations``, sums and products."""
    name, (x,) = step.output, step.inputs
    if step.function in activations:
        return [step]
    if step.function in ("silu", "hard-silu"):
        gate = steps.Activation(f"{name}/gate", (x,), step.function.replace("silu", "sigmoid"))
        product = steps.Multiply(name, (x, gate.output))
        return [*_activation_steps(gate, activations), product]
    if step.function == "hard-sigmoid":
        return [
            steps.AddConstant(f"{name}/raised", (x,), np.full(1, 3.0)),
            steps.Activation(f"{name}/clipped", (f"{name}/raised",), "relu6"),
            steps.Scale(name, (f"{name}/clipped",), np.full(1, 1 / 6), np.zeros(1)),
        ]
    return [step]


def _global_maximum_steps(step: steps.GlobalPool, shape: steps.Shape) -> list[Step]:
    """Returns a pool whose only window is the whole map, or all tokens as a column of one."""
    name, (x,) = step.output, step.inputs
    *_, columns, channels = (1, *shape)
    rows = math.prod(shape) // (columns * channels)
    expanded: list[Step] = []
    if len(shape) != 3:
        expanded.append(steps.Reshape(f"{name}/map", (x,), (rows, columns, channels)))
        x = f"{name}/map"
    size = (rows, columns)
    return [
        *expanded,
        steps.MaxPool(f"{name}/maximum", (x,), size, size),
        steps.Reshape(name, (f"{name}/maximum",), (channels,)),
    ]


def _mean_steps(step: steps.AveragePool, shape: steps.Shape) -> list[Step]:
    """Returns a pool whose padding counts as zeros, and the correction of each window."""
    if step.pads == steps.NO_PADS or is_same_padding(step, shape):
        return [step]
    name = step.output
    pool = replace(step, output=f"{name}/sums", inputs=(f"{name}/padded",), pads=steps.NO_PADS)
    return [
        steps.ZeroPad(f"{name}/padded", step.inputs, step.pads),
        pool,
        Scale(name, (pool.output,), padded_share(step, shape), np.zeros(1)),
    ]


def _separate_shifts(plan: Plan) -> Plan:
    """Returns the plan with the shift of every Scale as a step of its own."""
    replacements: dict[str, list[Step]] = {}
    for step in plan.steps:
        if isinstance(step, Scale) and np.any(step.shift):
            scaled = f"{step.output}/scaled"
            replacements[step.output] = [
                replace(step, output=scaled, shift=np.zeros(1)),
                steps.AddConstant(step.output, (scaled,), step.shift),
            ]
    return plan.replace(replacements)


def _layer_norm_steps(step: LayerNorm) -> list[Step]:
    name, (x,) = step.output, step.inputs
    expanded: list[Step] = []
    if not step.centred:
        expanded += [
            steps.Mean(f"{name}/mean", (x,)),
            steps.Subtract(f"{name}/centred", (x, f"{name}/mean")),
        ]
        x = f"{name}/centred"
    expanded += [
        steps.MeanSquare(f"{name}/variance", (x,)),
        steps.Rsqrt(f"{name}/inverse", (f"{name}/variance",), step.epsilon),
    ]
    normalized = steps.Multiply(f"{name}/bare", (x, f"{name}/inverse"))
    if step.gamma is None and step.beta is None:
        return [*expanded, replace(normalized, output=name)]
    gamma = np.ones(1) if step.gamma is None else step.gamma
    beta = np.zeros(1) if step.beta is None else step.beta
    return [*expanded, normalized, steps.Scale(name, (normalized.output,), gamma, beta)]


def _softmax_steps(step: steps.Softmax, count: int) -> list[Step]:
    """Returns ``exp(x − max) / Σ``, as two products with ``1/√Σ``.

    Where 8-bit integers hold it, 1/Σ would span too many orders of magnitude. The sum is a dense
    layer of ones, which accumulates exactly in every engine; LiteRT's reference SUM does not.
    """
    name, (x,) = step.output, step.inputs
    return [
        steps.Maximum(f"{name}/maximum", (x,)),
        steps.Subtract(f"{name}/shifted", (x, f"{name}/maximum")),
        steps.Exp(f"{name}/exponentials", (f"{name}/shifted",)),
        steps.Dense(f"{name}/total", (f"{name}/exponentials",), np.ones((count, 1))),
        steps.Rsqrt(f"{name}/root", (f"{name}/total",), 0.0),
        steps.Multiply(f"{name}/rooted", (f"{name}/exponentials", f"{name}/root")),
        steps.Multiply(name, (f"{name}/rooted", f"{name}/root")),
    ]


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


class _AttentionExpansion:
    """The primitive steps of one Attention."""

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

    def run(self) -> list[Step]:
        """Returns the steps; the last one has the name of the attention."""
        query, key, value = self._projections()
        shared_keys = self.step.key is None or self.step.heads == 1
        shared_values = self.step.value is None or self.step.heads == 1
        scores = self._shared_scores if shared_keys else self._head_scores
        weights = self._add(steps.Softmax, "weights", scores(query, key))
        if shared_keys and not shared_values:
            weights = self._heads_first(weights)
        elif shared_values and not shared_keys:
            weights = self._heads_in_rows(weights)
        sums = self._shared_sums if shared_values else self._head_sums
        self._dense("", sums(weights, value), self.step.out)
        return self.steps

    def _projections(self) -> tuple[str, str, str]:
        """Adds query, key and value; returns their tensors, the query's scaled."""
        optional = {"query": self.step.query, "key": self.step.key, "value": self.step.value}
        projections = {name: part for name, part in optional.items() if part is not None}
        if self.step.fused:
            tensors = self._fused(projections)
        else:
            tensors = {name: self._dense(name, self.x, p) for name, p in projections.items()}
        query = tensors["query"]
        if self.step.scale != 1:
            scale, shift = np.array([self.step.scale]), np.zeros(1)
            query = self._add(steps.Scale, "scaled_query", query, scale=scale, shift=shift)
        return query, tensors.get("key", self.x), tensors.get("value", self.x)

    def _fused(self, projections: dict[str, Projection]) -> dict[str, str]:
        """Adds one product for all ``projections``; returns the tensor of each."""
        kernel, bias = (np.concatenate(p, -1) for p in zip(*projections.values(), strict=True))
        qkv = self._dense("qkv", self.x, Projection(kernel, bias))
        tensors, start = {}, 0
        for name, projection in projections.items():
            stop = start + len(projection.bias)
            tensors[name] = self._add(steps.Slice, name, qkv, start=start, stop=stop)
            start = stop
        return tensors

    def _shared_scores(self, query: str, key: str) -> str:
        """Returns scores ``(tokens · heads, tokens)`` against keys that all heads share."""
        size = self.step.query.kernel.shape[1] // self.step.heads
        rows = self._add(steps.Reshape, "query_rows", query, to=(self._rows, size))
        return self._add(steps.MatMul, "scores", rows, key, transpose_b=True)

    def _shared_sums(self, weights: str, value: str) -> str:
        """Returns sums ``(tokens, heads · size)`` by weights ``(tokens · heads, tokens)``."""
        rows = self._add(steps.MatMul, "sums", weights, value)
        return self._concatenated(rows)

    def _head_scores(self, query: str, key: str) -> str:
        """Returns scores ``(heads, tokens, tokens)``."""
        rows = self._split("query", query, (1, 0, 2))
        columns = self._split("key", key, (1, 2, 0))
        return self._add(steps.MatMul, "scores", rows, columns)

    def _head_sums(self, weights: str, value: str) -> str:
        """Returns sums ``(tokens, heads · size)`` by weights ``(heads, tokens, tokens)``."""
        sums = self._add(steps.MatMul, "sums", weights, self._split("value", value, (1, 0, 2)))
        rows = self._add(steps.Transpose, "sums_by_token", sums, order=(1, 0, 2))
        return self._concatenated(rows)

    def _concatenated(self, rows: str) -> str:
        """Returns the heads' sums of each token side by side, ``(tokens, heads · size)``."""
        to = (self.tokens, self.step.out.kernel.shape[0])
        return self._add(steps.Reshape, "together", rows, to=to)

    def _split(self, name: str, x: str, order: tuple[int, ...]) -> str:
        """Returns ``(tokens, heads · size)`` as ``(tokens, heads, size)``, transposed."""
        projection = getattr(self.step, name)
        to = (self.tokens, self.step.heads, len(projection.bias) // self.step.heads)
        split = self._add(steps.Reshape, f"{name}_apart", x, to=to)
        return self._add(steps.Transpose, f"{name}_heads", split, order=order)

    def _heads_first(self, weights: str) -> str:
        """Returns weights ``(tokens · heads, tokens)`` as ``(heads, tokens, tokens)``."""
        to = (self.tokens, self.step.heads, self.tokens)
        split = self._add(steps.Reshape, "weights_apart", weights, to=to)
        return self._add(steps.Transpose, "weights_heads", split, order=(1, 0, 2))

    def _heads_in_rows(self, weights: str) -> str:
        """Returns weights ``(heads, tokens, tokens)`` as ``(tokens · heads, tokens)``."""
        rows = self._add(steps.Transpose, "weights_by_token", weights, order=(1, 0, 2))
        return self._add(steps.Reshape, "weight_rows", rows, to=(self._rows, self.tokens))

    @property
    def _rows(self) -> int:
        return self.tokens * self.step.heads
