"""Rounding of weights to integers: to the nearest, or by GPTQ to change the outputs least."""

import numpy as np
from numpy.typing import NDArray

from cct_export.errors import MissingDependency
from cct_export.graph.quantized import QuantParams
from cct_export.graph.steps import Array

# Added to the diagonal of the second moments, relative to its mean: constant inputs have none.
DAMPING = 0.01
# Rows that are rounded before those behind them are updated.
_BLOCK_ROWS = 64
# Dampings, each ten times as large as the last.
_TRIES = 8
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
    arXiv:2210.17323, algorithm 1). Inputs with the largest second moment come
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
    factor = _factor(second_moments, order)
    remaining, rounded = weights[order], np.empty_like(weights)
    # The rows behind a block get the errors of all its rows at once, by one product.
    for start in range(0, len(order), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(order))
        errors = np.empty((stop - start, weights.shape[1]))
        for index, row in enumerate(order[start:stop], start):
            rounded[row] = params.row(row, len(weights)).fake_quantize(remaining[index])
            error = (remaining[index] - rounded[row]) / factor[index, index]
            remaining[index + 1 : stop] -= np.outer(factor[index, index + 1 : stop], error)
            errors[index - start] = error
        remaining[stop:] -= factor[start:stop, stop:].T @ errors
    return rounded.reshape(kernel.shape)


def _factor(second_moments: Array, order: NDArray[np.intp]) -> Array:
    """Returns the upper Cholesky factor of the inverse of damped second moments.

    It is the inverse of the upper R with ``R Rᵀ`` the moments, which is their Cholesky factor from
    the last input to the first: computed in the memory of one matrix.

    Moments that a record stored in half precision may not be positive definite: these get more
    damping. Where none helps, the factor is that of independent inputs: weights go to the nearest.

    Args:
        second_moments: ``(inputs, inputs)``.
        order: that of the inputs.
    """
    try:
        from scipy.linalg import lapack
    except ImportError:
        raise MissingDependency.of("scipy", "tensorflow") from None
    backwards = order[::-1]
    scale = float(np.mean(np.diag(second_moments).astype(np.float64))) or 1.0
    for damping in DAMPING * 10.0 ** np.arange(_TRIES if np.isfinite(scale) else 0):
        # In LAPACK's order of elements, which a symmetric matrix has by being transposed.
        damped = second_moments[np.ix_(backwards, backwards)].astype(np.float64).T
        damped.flat[:: len(damped) + 1] += damping * scale
        lower, failed = lapack.dpotrf(damped, lower=1, clean=1, overwrite_a=1)
        if not failed:
            inverse, failed = lapack.dtrtri(lower, lower=1, overwrite_c=1)
        if not failed:
            factor: Array = inverse[::-1, ::-1]
            return factor
    return np.eye(len(order))
