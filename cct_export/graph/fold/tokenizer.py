"""Folds of what stands before the transformer."""

from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import NO_PADS, AddConstant, Conv, MaxPool, Pads, Scale, Step, ZeroPad


def rescaling(plan: Plan) -> Plan:
    """Scaling of the pixels goes into the first convolution.

    A convolution is linear: ``conv(s·x + t) = conv'(x) + Σ k·t`` where ``k' = k·s`` channel by
    channel. Without padding the second term is the same everywhere, a bias. With zeros padded
    around ``s·x + t`` it is not; then ``s·x + t = s·(x + t/s)``, only s goes into the convolution,
    and the shift stays as an addition to the image, which has fewer values than a map of what the
    shift adds to each output.
    """
    for scale in plan.steps:
        conv = plan.only_consumer(scale.output)
        if isinstance(scale, Scale) and isinstance(conv, Conv) and np.all(scale.scale):
            changed = {scale.output: _shift(scale, conv), conv.output: _scaled(conv, scale)}
            plan = plan.replace(changed)
    return plan


def _keeps_shift(conv: Conv, scale: Scale) -> bool:
    return conv.pads != NO_PADS and bool(np.any(scale.shift))


def _shift(scale: Scale, conv: Conv) -> list[Step]:
    """Returns what is left of ``scale`` before ``conv``."""
    if not _keeps_shift(conv, scale):
        return []
    return [AddConstant(scale.output, scale.inputs, scale.shift / scale.scale)]


def _scaled(conv: Conv, scale: Scale) -> list[Step]:
    """Returns ``conv`` on what is left before it."""
    kernel = conv.kernel * scale.scale[:, None]
    if _keeps_shift(conv, scale):
        return [replace(conv, kernel=kernel)]
    bias = conv.bias
    if np.any(scale.shift):
        added = (conv.kernel * scale.shift[:, None]).sum((0, 1, 2))
        bias = added if bias is None else bias + added
    return [replace(conv, inputs=scale.inputs, kernel=kernel, bias=bias)]


def pool_padding(plan: Plan) -> Plan:
    """Zeros between ReLU and max pooling become padding of the pool.

    After ReLU no value is negative, so a zero in a window never exceeds the window's values, as
    what a pool pads never does. Exact where every window holds at least one value of the map.
    """
    for pool in plan.steps:
        pad = plan.producer(pool.inputs[0])
        if not (isinstance(pool, MaxPool) and isinstance(pad, ZeroPad)):
            continue
        conv = plan.producer(pad.inputs[0])
        rows, columns = zip(pad.pads, pool.pads, strict=True)
        pads = (_sum(*rows), _sum(*columns))
        positive = isinstance(conv, Conv) and conv.relu
        if positive and plan.only_consumer(pad.output) and _windows_hold(plan, pool, pad, pads):
            merged = replace(pool, inputs=pad.inputs, pads=pads)
            plan = plan.replace({pad.output: [], pool.output: [merged]})
    return plan


def _sum(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    return (one[0] + two[0], one[1] + two[1])


def _windows_hold(plan: Plan, pool: MaxPool, pad: ZeroPad, pads: Pads) -> bool:
    """Tells whether every window reaches into the map, and engines take the padding.

    They want less padding on each side than a window is long; then the first window holds a value.
    """
    before, after = plan.shapes[pad.inputs[0]], plan.shapes[pool.output]
    for axis in (0, 1):
        last = (after[axis] - 1) * pool.strides[axis]
        if max(pads[axis]) >= pool.size[axis] or last >= pads[axis][0] + before[axis]:
            return False
    return True
