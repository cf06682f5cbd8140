"""What the frozen graph of a SavedModel tells: its outputs, and whether it scales pixels."""

from typing import Any

import numpy as np

from cct_export.importers.preprocessing import are_raw
from cct_export.records.output import Activation

# Those that only move values.
_MOVING = (
    "Cast", "ExpandDims", "Identity", "IdentityN", "Reshape", "Squeeze", "StopGradient",
    "StridedSlice",
)  # fmt: skip
_ENDS: dict[str, Activation] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    # Of these a softmax makes the probabilities again.
    "LogSoftmax": "none",
    # What layers with weights end in without an activation function.
    "BatchMatMulV2": "none",
    "BiasAdd": "none",
    "MatMul": "none",
}
_WITH_WEIGHTS = (
    "BatchMatMulV2", "Conv2D", "Conv2DBackpropInput", "Conv3D", "DepthwiseConv2dNative", "Einsum",
    "MatMul",
)  # fmt: skip
_SIZES = ("Rank", "Shape", "Size")
# They pass tensors to other functions, whose operators are not among those of the graph.
_CALLS = (
    "If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile",
    "TensorListFromTensor", "While",
)  # fmt: skip


def activations_of(frozen: Any) -> tuple[Activation, ...]:
    """Returns what each output holds, by its last operator; empty where that does not tell.

    Args:
        frozen: a concrete function of TensorFlow whose variables are constants.
    """
    return tuple(map(_activation, frozen.outputs))


def _activation(tensor: Any) -> Activation:
    has_classes = True
    while tensor.op.type in _MOVING:
        before = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
        has_classes &= before.shape[-1:] == tensor.shape[-1:]
        tensor = before
    activation = _ENDS.get(tensor.op.type, "")
    # A softmax is one over the last axis only.
    return activation if has_classes or activation != "softmax" else ""


def scales_pixels(frozen: Any, image: np.ndarray) -> bool | None:
    """Returns whether a program changes the values of pixels before its first weights.

    Args:
        frozen: see ``activations_of``; of one image.
        image: see ``preprocessing.black_and_white``.

    Returns:
        None where it cannot be told, see ``preprocessing.scales_pixels``.
    """
    import tensorflow as tf

    (pixels,) = frozen.inputs
    untouched, first = {pixels.ref()}, []
    for operator in frozen.graph.get_operations():
        reached = [each for each in operator.inputs if each.ref() in untouched]
        if not reached or operator.type in _SIZES:
            continue
        if operator.type in _WITH_WEIGHTS + _CALLS:
            first += [(each, operator.type in _CALLS) for each in reached]
        else:
            untouched |= {each.ref() for each in operator.outputs}
    if not first:
        return None
    front = frozen.prune(pixels, [tensor for tensor, _ in first])
    values = front(tf.cast(image, pixels.dtype))
    raw = [
        is_call for each, (_, is_call) in zip(values, first, strict=True) if are_raw(each.numpy())
    ]
    # One branch without scaling is enough.
    return None if raw and all(raw) else not raw
