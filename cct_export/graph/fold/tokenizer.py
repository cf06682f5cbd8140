"""Folds of the layers before the transformer."""

from dataclasses import replace

import numpy as np

from cct_export.graph.plan import Plan
from cct_export.graph.steps import (
    NO_PADS,
    AddConstant,
    Array,
    AveragePool,
    Conv,
    Dense,
    Gather,
    GlobalPool,
    MaxPool,
    Pads,
    Reshape,
    Resize,
    Scale,
    Shape,
    Step,
    ZeroPad,
)


def rescaling(plan: Plan) -> Plan:
    """Folds the rescaling of pixels into the first convolution or dense layer.

    A convolution is linear: ``conv(s·x + t) = conv'(x) + Σ k·t`` where ``k' = k·s`` channel by
    channel. Without padding the second term is the same everywhere: a bias. With zeros padded
    around ``s·x + t`` it is not; then ``s·x + t = s·(x + t/s)``, only s goes into the convolution,
    and the shift remains as an addition to the image, which is smaller than a map of what the
    shift adds to each output. Means and interpolation between commute with both, because their
    weights sum to 1, and so does a reshape that keeps channels apart. Other scales, such as batch
    normalization that no weights precede, fold where no shift remains: one tensor of ``x + t/s``
    would have channels of very different ranges.
    """
    for name in [step.output for step in plan.steps]:
        scale = plan.producer(name)
        if isinstance(scale, Scale) and np.all(scale.scale):
            plan = _into_weights(plan, scale)
    return plan


def _into_weights(plan: Plan, scale: Scale) -> Plan:
    """Returns the plan with a scale folded into the weights that it reaches, if any."""
    path: list[Step] = []
    step = plan.only_consumer(scale.output)
    while isinstance(step, Reshape | AveragePool | Resize | GlobalPool):
        if isinstance(step, GlobalPool) and step.maximum:
            return plan
        path.append(step)
        step = plan.only_consumer(step.output)
    if not isinstance(step, Conv | Dense):
        return plan
    affine = _broadcast(scale, [plan.shapes[passed.output] for passed in path])
    if affine is None:
        return plan
    keeps_shift = _keeps_shift(step, scale)
    weighted = _scaled(step, *affine, keeps_shift=keeps_shift)
    if keeps_shift and not _is_of_pixels(plan, scale.inputs[0]):
        return plan
    if keeps_shift:
        shift = AddConstant(scale.output, scale.inputs, scale.shift / scale.scale)
        return plan.replace({scale.output: [shift], step.output: [weighted]})
    rest = [*path, weighted]
    rest[0] = replace(rest[0], inputs=scale.inputs)
    return plan.replace({scale.output: [], **{s.output: [s] for s in rest}})


def _is_of_pixels(plan: Plan, name: str) -> bool:
    """Returns whether a tensor is the image, perhaps in another size or order of channels."""
    step = plan.producer(name)
    return step is None or (
        isinstance(step, Resize | Gather) and _is_of_pixels(plan, step.inputs[0])
    )


def _broadcast(scale: Scale, shapes: list[Shape]) -> tuple[Array, Array] | None:
    """Returns scale and shift for tensors of the last shape; None if they differ along its axes."""
    factor, shift = scale.scale, scale.shift
    for shape in shapes:
        for array in (factor, shift):
            if shape[-1] % array.size:
                return None
        factor, shift = (
            a if a.size == 1 else np.tile(a, shape[-1] // a.size) for a in (factor, shift)
        )
    return factor, shift


def _keeps_shift(step: Conv | Dense, scale: Scale) -> bool:
    return isinstance(step, Conv) and step.pads != NO_PADS and bool(np.any(scale.shift))


def _scaled(step: Conv | Dense, scale: Array, shift: Array, keeps_shift: bool) -> Conv | Dense:
    """Returns ``step`` with the scale, and the shift if possible, folded in."""
    kernel, bias = step.kernel * scale[:, None], step.bias
    if np.any(shift) and not keeps_shift:
        added = (step.kernel * shift[:, None]).sum(tuple(range(step.kernel.ndim - 1)))
        bias = added if bias is None else bias + added
    return replace(step, kernel=kernel, bias=bias)


def pool_padding(plan: Plan) -> Plan:
    """Folds zero padding into the padding of the max pool, or of the convolution, that follows.

    After ReLU no value is negative, so a zero never exceeds the other values of a window, just as
    the −∞ that a pool pads with. Exact where every window covers at least one value of the map. A
    convolution pads with zeros itself.
    """
    for pool in plan.steps:
        pad = plan.producer(pool.inputs[0])
        if not (isinstance(pool, MaxPool | Conv) and isinstance(pad, ZeroPad)):
            continue
        rows, columns = zip(pad.pads, pool.pads, strict=True)
        pads = (_sum(*rows), _sum(*columns))
        same = isinstance(pool, Conv) or (
            plan.is_non_negative(pad.inputs[0]) and _is_covered(plan, pool, pad, pads)
        )
        if same and plan.only_consumer(pad.output):
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
