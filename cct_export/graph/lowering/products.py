"""Matrix products in all spellings: ``matmul``, ``einsum``, dense layers and attention."""

import math
from collections.abc import Sequence

import numpy as np

from cct_export.graph import steps
from cct_export.graph.lowering.builder import Builder, NotLowered, Tensor, Value, tensor
from cct_export.graph.lowering.elementwise import plus
from cct_export.graph.steps import Array

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def matmul(builder: Builder, a: Value, b: Value) -> Tensor:
    """Returns ``a @ b`` of tensors, or of one and a constant matrix."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return builder.matmul(tensor(a), tensor(b))
    constant = b if isinstance(a, Tensor) else a
    if isinstance(constant, Tensor) or constant.ndim != 2:
        raise NotLowered("it multiplies by a constant that is no matrix")
    if isinstance(a, Tensor):
        return builder.add(steps.Dense, tensor(a), kernel=constant)
    x = tensor(b)
    rank = len(x.shape)
    if rank < 2:
        raise NotLowered("it multiplies a matrix and the values of an image")
    y = builder.moved(x, rank - 1, rank - 2)
    return builder.moved(
        builder.add(steps.Dense, y, part="product", kernel=constant.T), rank - 1, rank - 2
    )


def einsum(builder: Builder, subscripts: str, a: Value, b: Value) -> Tensor:
    """Returns an einsum of two tensors, or of one and a constant.

    Args:
        builder: the steps so far.
        subscripts: with ``->``; ``...`` may stand for axes.
        a: the first operand.
        b: the second.
    """
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    first, comma, second = inputs.partition(",")
    if not arrow or not comma or "," in second:
        raise NotLowered(f"einsum {subscripts!r}")
    if not isinstance(a, Tensor):
        a, b, first, second = b, a, second, first
    ranks = [_rank(a), _rank(b)]
    ellipsis = max(
        rank - len(labels.replace("...", ""))
        for rank, labels in zip(ranks, (first, second), strict=True)
    )
    letters = _LETTERS[:ellipsis]
    first, second, output = (each.replace("...", letters) for each in (first, second, output))
    if any(len(set(each)) < len(each) for each in (first, second, output)):
        raise NotLowered(f"einsum {subscripts!r}")
    x = tensor(a)
    if output[0] != first[0]:
        raise NotLowered(f"einsum {subscripts!r} moves the batch axis")
    if isinstance(b, Tensor):
        if second[0] != first[0]:
            raise NotLowered(f"einsum {subscripts!r} multiplies different images")
        return _product(builder, (first[1:], second[1:], output[1:]), x, tensor(b))
    return dense(builder, (first[1:], second, output[1:]), x, b)


def _rank(value: Value) -> int:
    return len(value.keras_shape) if isinstance(value, Tensor) else value.ndim


def _sizes(labels: Sequence[str], x: Tensor, b: str, shape: Sequence[int]) -> dict[str, int]:
    return dict(zip(b, shape, strict=True)) | dict(zip(labels, x.shape, strict=True))


def _check_sums(labels: tuple[str, str, str]) -> None:
    a, b, output = labels
    unknown = (set(a) ^ set(b)) - set(output)
    if unknown or set(output) - set(a) - set(b):
        raise NotLowered(f"einsum {a},{b}->{output} without the batch axis")


def _product(builder: Builder, labels: tuple[str, str, str], a: Tensor, b: Tensor) -> Tensor:
    """Returns the einsum of two tensors as one matrix product."""
    _check_sums(labels)
    first, second, output = labels
    shared = [c for c in output if c in first and c in second]
    summed = [c for c in first if c in second and c not in output]
    rows = [c for c in output if c in first and c not in second]
    columns = [c for c in output if c in second and c not in first]
    if rows and columns and output.index(columns[0]) < output.index(rows[0]):
        return _product(builder, (second, first, output), b, a)
    size = _sizes(first, a, second, b.shape)

    def matrix(x: Tensor, names: str, left: list[str], right: list[str]) -> Tensor:
        x = builder.transpose(x, [names.index(c) for c in (*shared, *left, *right)])
        sizes = [math.prod(size[c] for c in part) for part in (left, right)]
        return builder.reshape(x, (*(size[c] for c in shared), *sizes))

    y = builder.matmul(
        matrix(a, first, rows, summed),
        builder.moved(matrix(b, second, columns, summed), len(shared) + 1, len(shared)),
    )
    names = [*shared, *rows, *columns]
    y = builder.reshape(y, [size[c] for c in names])
    return builder.transpose(y, [names.index(c) for c in output])


def dense(
    builder: Builder,
    labels: tuple[str, str, str],
    x: Tensor,
    kernel: Array,
    bias: Array | None = None,
) -> Tensor:
    """Returns the einsum of a tensor and a constant, as a dense layer.

    Args:
        builder: the steps so far.
        labels: of the tensor, the constant and the result, without the batch axis.
        x: the tensor.
        kernel: the constant.
        bias: added to the result, whose last axes it has; None for none.
    """
    _check_sums(labels)
    first, second, output = labels
    if any(c in second and c in output for c in first):
        raise NotLowered(f"einsum {first},{second}->{output} without the batch axis")
    summed = [c for c in first if c in second]
    kept = [c for c in first if c not in second]
    made = [c for c in output if c in second]
    size = _sizes(first, x, second, kernel.shape)
    if any(size[c] != count for c, count in zip(second, kernel.shape, strict=True)):
        raise NotLowered("the shapes of its operands differ")
    matrix = kernel.transpose([second.index(c) for c in (*summed, *made)])
    units = math.prod(size[c] for c in made)
    x = builder.transpose(x, [first.index(c) for c in (*kept, *summed)])
    x = builder.reshape(x, (*(size[c] for c in kept), math.prod(size[c] for c in summed)))
    names = [*kept, *made]
    added = bias is not None and names == list(output) and bias.ndim <= len(made)
    flat = (
        np.broadcast_to(bias, [size[c] for c in made]).reshape(-1)
        if bias is not None and added
        else None
    )
    y = builder.add(steps.Dense, x, kernel=matrix.reshape(-1, units), bias=flat)
    y = builder.reshape(y, [size[c] for c in names])
    y = builder.transpose(y, [names.index(c) for c in output])
    return y if bias is None or added else plus(builder, y, bias)


def attention(builder: Builder, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Returns ``softmax(scale · q kᵀ) v`` per head of tensors ``(tokens, heads, size)``."""
    if query.shape[1] != key.shape[1]:
        raise NotLowered("queries share keys")
    q, k, v = (builder.moved(each, 1, 0) for each in (query, key, value))
    scores = builder.matmul(q, builder.moved(k, 2, 1))
    scores = builder.affine(scores, np.full(1, scale), np.zeros(1))
    weights = builder.add(steps.Softmax, scores, part="softmax")
    return builder.moved(builder.matmul(weights, v), 0, 1)
