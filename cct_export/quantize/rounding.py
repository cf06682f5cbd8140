"""Rounding weights so that what they compute changes least, not the weights themselves."""

import numpy as np

from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array

# Added to the second moments, relative to their mean: inputs that never vary have none.
DAMPING = 0.01
# Weights so small are zeros: engines take no scale that float32 has no normal number for.
VANISHING = 1e-30


def weight_grid(kernel: Array, bits: int = 8) -> QuantParams:
    """Returns a symmetric grid for each output channel, the last axis."""
    largest = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0)
    top = 2 ** (bits - 1) - 1
    return QuantParams(np.where(largest > VANISHING, largest, 1.0) / top, 0, -top, top)


def nearest(kernel: Array, grid: QuantParams) -> Array:
    """Returns every weight at the nearest place of the grid."""
    return grid.snap(kernel)


def gptq(kernel: Array, grid: QuantParams, moment: Array) -> Array:
    """Rounds weights one input after the other; those to come make up for the error so far.

    The error of the outputs, ``Σ (w − q) x``, is least squares in the weights not yet rounded, so
    each rounding is answered by the best change of the rest (GPTQ, arXiv:2210.17323, algorithm 1,
    on the whole matrix). Inputs with the largest second moment come first.

    Args:
        kernel: ``(…, outputs)``; the axes before the last are the inputs.
        grid: of the weights, one scale per output.
        moment: mean of ``x xᵀ`` over the inputs x, ``(inputs, inputs)``.

    Returns:
        The kernel on its grid.
    """
    weights = kernel.reshape(-1, kernel.shape[-1])
    order = np.argsort(-np.diag(moment), kind="stable")
    factor = _factor(moment[np.ix_(order, order)])
    left, rounded = weights[order].copy(), np.empty_like(weights)
    for index, place in enumerate(order):
        rounded[place] = grid.snap(left[index])
        error = (left[index] - rounded[place]) / factor[index, index]
        left[index + 1 :] -= np.outer(factor[index, index + 1 :], error)
    return rounded.reshape(kernel.shape)


def _factor(moment: Array) -> Array:
    """Returns the upper Cholesky factor of the inverse of damped second moments.

    Moments that a record keeps in half precision may be no moments any more: damped more, they are.
    """
    damping = DAMPING
    identity = np.eye(len(moment)) * (np.mean(np.diag(moment)) or 1.0)
    while True:
        try:
            factor: Array = np.linalg.cholesky(np.linalg.inv(moment + damping * identity)).T
            return factor
        except np.linalg.LinAlgError:
            damping *= 10
