"""Rounding of weights to integers: to the nearest, or by GPTQ to change the outputs least."""

import numpy as np

from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array

# Added to the diagonal of the second moments, relative to its mean: constant inputs have none.
DAMPING = 0.01
# Smaller weights count as zeros: engines refuse scales that are subnormal in float32.
VANISHING = 1e-30
# The smallest normal float16.
SMALLEST_HALF = 2.0**-14


def weight_params(kernel: Array, bits: int = 8, block: int = 0) -> QuantParams:
    """Returns symmetric parameters of a kernel, whose output channels are the last axis.

    Args:
        kernel: ``(…, outputs)``.
        bits: of its integers.
        block: rows of a matrix that share a scale for each output, which is a float16; 0 for one
            scale for each output.
    """
    qmax = 2 ** (bits - 1) - 1
    if block:
        largest = np.abs(kernel).reshape(-1, block, kernel.shape[-1]).max(1)
        scale = np.maximum(largest / qmax, SMALLEST_HALF).astype(np.float16).astype(np.float64)
        return QuantParams(scale, 0, -qmax, qmax)
    largest = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0)
    return QuantParams(np.where(largest > VANISHING, largest, 1.0) / qmax, 0, -qmax, qmax)


def gptq(kernel: Array, params: QuantParams, second_moments: Array) -> Array:
    """Rounds weights input by input; the remaining weights compensate for the error so far.

    The squared error of the outputs, ``Σ (w − q) x``, is a least-squares problem in the weights
    that are not yet rounded, so each rounding is followed by the optimal update of the rest (GPTQ,
    arXiv:2210.17323, algorithm 1, on the whole matrix). Inputs with the largest second moment come
    first.

    Args:
        kernel: ``(…, outputs)``; the axes before the last are the inputs.
        params: of the weights, one scale per output, or per block of inputs and output.
        second_moments: mean of ``x xᵀ`` over the inputs x, ``(inputs, inputs)``.

    Returns:
        The kernel, fake-quantized.
    """
    weights = kernel.reshape(-1, kernel.shape[-1])
    order = np.argsort(-np.diag(second_moments), kind="stable")
    factor = _factor(second_moments[np.ix_(order, order)])
    remaining, rounded = weights[order].copy(), np.empty_like(weights)
    for index, row in enumerate(order):
        rounded[row] = params.row(row, len(weights)).fake_quantize(remaining[index])
        error = (remaining[index] - rounded[row]) / factor[index, index]
        remaining[index + 1 :] -= np.outer(factor[index, index + 1 :], error)
    return rounded.reshape(kernel.shape)


def _factor(second_moments: Array) -> Array:
    """Returns the upper Cholesky factor of the inverse of damped second moments.

    Moments that a record stored in half precision may not be positive definite: these get more
    damping.
    """
    damping = DAMPING
    identity = np.eye(len(second_moments)) * (np.mean(np.diag(second_moments)) or 1.0)
    while True:
        try:
            inverse = np.linalg.inv(second_moments + damping * identity)
            factor: Array = np.linalg.cholesky(inverse).T
            return factor
        except np.linalg.LinAlgError:
            damping *= 10
