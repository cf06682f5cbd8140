"""Folds of multi-head attention."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Attention, Projection

_Rewrite = Callable[[Attention], Attention]
# Of six that were tried on the shipped models, that whose worst int8-full file is closest to Keras.
_SEED = 4000


def query_scale(plan: Plan) -> Plan:
    """Folds the scale of the scores into the query projection.

    A scalar commutes with products: ``s·((x Wq + bq) kᵀ) = (x (s·Wq) + s·bq) kᵀ``.
    """

    def rewrite(step: Attention) -> Attention:
        kernel, bias = step.query
        return replace(step, scale=1.0, query=Projection(step.scale * kernel, step.scale * bias))

    return _rewrite_all(plan, rewrite)


def key_bias(plan: Plan) -> Plan:
    """Drops the bias of the keys.

    ``q (k + b)ᵀ = q kᵀ + q bᵀ``: the second term is the same for every key, and a softmax over the
    keys is invariant to a constant added to all of them.
    """

    def rewrite(step: Attention) -> Attention:
        if step.key is None:
            return step
        return replace(step, key=Projection(step.key.kernel, np.zeros_like(step.key.bias)))

    return _rewrite_all(plan, rewrite)


def value_bias(plan: Plan) -> Plan:
    """Folds the bias of the values into the bias of the output projection.

    The weights of a softmax sum to 1, so ``A (v + b) = A v + b``, and
    ``(A v + b) Wo + bo = A v Wo + (b Wo + bo)``.
    """

    def rewrite(step: Attention) -> Attention:
        if step.value is None:
            return step
        kernel, bias = step.out
        out = Projection(kernel, step.value.bias @ kernel + bias)
        return replace(
            step, value=Projection(step.value.kernel, np.zeros_like(step.value.bias)), out=out
        )

    return _rewrite_all(plan, rewrite)


def query_key(plan: Plan) -> Plan:
    """Merges query and key projection into one matrix per head; the tokens become the keys.

    ``(x Wq + bq)(y Wk + bk)ᵀ = (x Wq Wkᵀ + bq Wkᵀ) yᵀ`` plus terms that are the same for every
    key, to which the softmax is invariant. Applied where it saves multiplications.
    """

    def rewrite(step: Attention) -> Attention:
        if step.key is None:
            return step
        query = _per_head(step.query.kernel, step.heads)
        key = _per_head(step.key.kernel, step.heads)
        bias = step.query.bias.reshape(step.heads, -1)
        kernel = np.einsum("whk,vhk->whv", query, key)
        bias = np.einsum("hk,vhk->hv", bias, key)
        merged = Projection(kernel.reshape(len(kernel), -1), bias.reshape(-1))
        return replace(step, query=merged, key=None)

    return _rewrite_all(plan, rewrite, only_if_cheaper=True)


def value_output(plan: Plan) -> Plan:
    """Merges value and output projection into one matrix per head; the tokens become the values.

    ``Σ_h A_h (x Wv_h + bv_h) Wo_h + bo = Σ_h (A_h x)(Wv_h Wo_h) + (Σ_h bv_h Wo_h + bo)``, because
    the rows of A sum to 1. Applied where it saves multiplications.
    """

    def rewrite(step: Attention) -> Attention:
        if step.value is None:
            return step
        value = _per_head(step.value.kernel, step.heads)
        out = step.out.kernel.reshape(step.heads, -1, step.out.kernel.shape[1])
        kernel = np.einsum("whk,hkv->hwv", value, out)
        bias = step.value.bias @ step.out.kernel + step.out.bias
        merged = Projection(kernel.reshape(-1, kernel.shape[2]), bias)
        return replace(step, value=None, out=merged)

    return _rewrite_all(plan, rewrite, only_if_cheaper=True)


def head_rotation(plan: Plan) -> Plan:
    """Rotates queries, keys and values inside each head, and gives all three the same size.

    ``(q R)(k R)ᵀ = q kᵀ`` for an orthogonal R, and ``(A v R) Rᵀ Wo = A v Wo``; a factor of the
    queries or values divides the keys or the output projection. Each channel is then a mixture of
    all of its head, without outliers, and the fused projection has one range (arXiv:2404.00456).
    """

    def rewrite(step: Attention) -> Attention:
        if step.key is None or step.value is None:
            return step
        query, key = (_rotated_heads(part, step.heads, 0) for part in (step.query, step.key))
        value = _rotated_heads(step.value, step.heads, 1)
        rows = step.out.kernel.reshape(step.heads, -1, step.out.kernel.shape[1])
        matrix = orthogonal_matrix(rows.shape[1], seed=1)
        kernel = (matrix.T @ rows).reshape(step.out.kernel.shape)
        sizes = [float(np.sqrt(np.mean(part.kernel**2))) for part in (query, key, value)]
        if not all(sizes):
            return step
        common = math.sqrt(sizes[0] * sizes[1])
        query, key, value = (
            Projection(part.kernel * (common / scale), part.bias * (common / scale))
            for part, scale in zip((query, key, value), sizes, strict=True)
        )
        out = Projection(kernel * (sizes[2] / common), step.out.bias)
        return replace(step, query=query, key=key, value=value, out=out)

    return _rewrite_all(plan, rewrite)


def _rotated_heads(projection: Projection, heads: int, seed: int) -> Projection:
    kernel, bias = (part.reshape(-1, heads, len(projection.bias) // heads) for part in projection)
    matrix = orthogonal_matrix(kernel.shape[2], seed=seed)
    return Projection(
        (kernel @ matrix).reshape(projection.kernel.shape), (bias @ matrix).reshape(-1)
    )


def orthogonal_matrix(width: int, *, seed: int) -> Array:
    """Returns a random orthogonal matrix, ``(width, width)``."""
    gaussian = np.random.default_rng(_SEED + seed).normal(size=(width, width))
    orthogonal, triangle = np.linalg.qr(gaussian)
    # Signs that make the factorization unique, and the same with every LAPACK.
    matrix: Array = orthogonal * np.sign(np.diag(triangle))
    return matrix


def fuse_qkv(plan: Plan) -> Plan:
    """Fuses the query, key and value projections that were not merged into one product.

    ``x [Wq Wk Wv] = [x Wq, x Wk, x Wv]``: one larger matrix product instead of three.
    """

    def rewrite(step: Attention) -> Attention:
        if step.key is None or step.value is None:
            return step
        return replace(step, fused=True)

    return _rewrite_all(plan, rewrite)


def _per_head(kernel: Array, heads: int) -> Array:
    """Returns a kernel ``(width, heads · size)`` as ``(width, heads, size)``."""
    return kernel.reshape(len(kernel), heads, -1)


def _rewrite_all(plan: Plan, rewrite: _Rewrite, only_if_cheaper: bool = False) -> Plan:
    """Returns the plan with every attention rewritten."""
    for step in plan.steps:
        if isinstance(step, Attention):
            rewritten = plan.replace({step.output: [rewrite(step)]})
            if not only_if_cheaper or rewritten.total_macs < plan.total_macs:
                plan = rewritten
    return plan
