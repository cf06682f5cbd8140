"""Folds of the layers before the transformer."""

from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import NO_PADS, AddConstant, Conv, MaxPool, Pads, Scale, Step, ZeroPad


def rescaling(plan: Plan) -> Plan:
    """Folds the rescaling of pixels into the first convolution.

    A convolution is linear: ``conv(s·x + t) = conv'(x) + Σ k·t`` where ``k' = k·s`` channel by
    channel. Without padding the second term is the same everywhere: a bias. With zeros padded
    around ``s·x + t`` it is not; then ``s·x + t = s·(x + t/s)``, only s goes into the convolution,
    and the shift remains as an addition to the image, which is smaller than a map of what the
    shift adds to each output.
    """
    for scale in plan.steps:
        conv = plan.only_consumer(scale.output)
        if isinstance(scale, Scale) and isinstance(conv, Conv) and np.all(scale.scale):
            plan = plan.replace(
                {scale.output: _remaining_shift(scale, conv), conv.output: [_scaled(conv, scale)]}
            )
    return plan


def _keeps_shift(conv: Conv, scale: Scale) -> bool:
    return conv.pads != NO_PADS and bool(np.any(scale.shift))


def _remaining_shift(scale: Scale, conv: Conv) -> list[Step]:
    """Returns the steps that remain of ``scale`` before ``conv``."""
    if not _keeps_shift(conv, scale):
        return []
    return [AddConstant(scale.output, scale.inputs, scale.shift / scale.scale)]


def _scaled(conv: Conv, scale: Scale) -> Conv:
    """Returns ``conv`` with the scale, and the shift if possible, folded in."""
    kernel = conv.kernel * scale.scale[:, None]
    if _keeps_shift(conv, scale):
        return replace(conv, kernel=kernel)
    bias = conv.bias
    if np.any(scale.shift):
        added = (conv.kernel * scale.shift[:, None]).sum((0, 1, 2))
        bias = added if bias is None else bias + added
    return replace(conv, inputs=scale.inputs, kernel=kernel, bias=bias)


def pool_padding(plan: Plan) -> Plan:
    """Folds zero padding between ReLU and max pooling into the padding of the pool.

    After ReLU no value is negative, so a zero never exceeds the other values of a window, just as
    the −∞ that a pool pads with. Exact where every window covers at least one value of the map.
    """
    for pool in plan.steps:
        pad = plan.producer(pool.inputs[0])
        if not (isinstance(pool, MaxPool) and isinstance(pad, ZeroPad)):
            continue
        conv = plan.producer(pad.inputs[0])
        rows, columns = zip(pad.pads, pool.pads, strict=True)
        pads = (_sum(*rows), _sum(*columns))
        non_negative = isinstance(conv, Conv) and conv.relu
        if non_negative and plan.only_consumer(pad.output) and _is_covered(plan, pool, pad, pads):
            merged = replace(pool, inputs=pad.inputs, pads=pads)
            plan = plan.replace({pad.output: [], pool.output: [merged]})
    return plan


def _sum(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return (a[0] + b[0], a[1] + b[1])


def _is_covered(plan: Plan, pool: MaxPool, pad: ZeroPad, pads: Pads) -> bool:
    """Returns whether every window covers a value of the map and engines accept the padding.

    Engines accept less padding on each side than the window's size; then the first window covers
    a value.
    """
    before, after = plan.shapes[pad.inputs[0]], plan.shapes[pool.output]
    for axis in (0, 1):
        last = (after[axis] - 1) * pool.strides[axis]
        if max(pads[axis]) >= pool.size[axis] or last >= pads[axis][0] + before[axis]:
            return False
    return True
