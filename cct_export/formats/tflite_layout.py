"""Layouts that LiteRT computes faster, or TFLite Micro in less memory: no value changes."""

from dataclasses import replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Conv, Shape, Step

# XNNPACK's kernels for 8-bit integers take input channels in groups of as many.
_CHANNEL_GROUP = 8


def without_unused_padding(quantized: QuantizedPlan) -> QuantizedPlan:
    """Returns the plan with pools that pad no more than their windows reach.

    Padding is a copy of the map, which is the largest tensor of a CCT.
    """
    replacements: dict[str, list[Step]] = {}
    for step in quantized.plan.steps:
        if isinstance(step, steps.MaxPool):
            sizes, counts = (
                quantized.plan.shapes[step.inputs[0]],
                quantized.plan.shapes[step.output],
            )
            (top, bottom), (left, right) = (
                (before, max(0, (count - 1) * stride + window - size - before))
                for (before, _), count, stride, window, size in zip(
                    step.pads, counts, step.strides, step.size, sizes, strict=False
                )
            )
            replacements[step.output] = [replace(step, pads=((top, bottom), (left, right)))]
    return replace(quantized, plan=quantized.plan.replace(replacements))


def with_transposed_operands(quantized: QuantizedPlan, *, everywhere: bool) -> QuantizedPlan:
    """Returns the plan with second operands of products transposed.

    Such an operand has the layout of a kernel, which engines multiply by without another copy.
    What transposes an operand anyway then transposes it in another order.

    Args:
        quantized: the plan.
        everywhere: whether other operands get a transposition of their own.
    """
    plan, qparams, configs = quantized.plan, dict(quantized.qparams), dict(quantized.configs)
    replacements: dict[str, list[Step]] = {}
    for step in plan.steps:
        if not isinstance(step, steps.MatMul) or step.transpose_b:
            continue
        left, right = step.inputs
        producer = plan.producer(right)
        if isinstance(producer, steps.Transpose) and plan.only_consumer(right) is step:
            *leading, last, first = producer.order
            replacements[right] = [replace(producer, order=(*leading, first, last))]
        elif everywhere:
            axes = tuple(range(len(plan.shapes[right])))
            transposed = f"{step.output}/transposed"
            added = steps.Transpose(transposed, (right,), (*axes[:-2], axes[-1], axes[-2]))
            qparams[transposed] = qparams[right]
            configs[transposed] = replace(configs[step.output], weights=None)
            replacements[step.output] = [added]
            right = transposed
        else:
            continue
        product = replace(step, inputs=(left, right), transpose_b=True)
        replacements[step.output] = [*replacements.get(step.output, []), product]
    return replace(quantized, plan=plan.replace(replacements), qparams=qparams, configs=configs)


def over_pairs_of_pixels(quantized: QuantizedPlan) -> QuantizedPlan:
    """Returns the plan with convolutions of few channels over pairs of neighbouring pixels.

    ``(H, W, C)`` is in memory what ``(H, W/2, 2C)`` is. A convolution of 8-bit integers whose
    channels XNNPACK fills up with zeros multiplies by fewer of them over pairs: of the 72 products
    that the 27 of a first convolution 3 × 3 cost, 48 are left. With stride 1 an output position
    holds two neighbouring pixels, so the kernel has the output channels twice, shifted.
    """
    qparams, configs = dict(quantized.qparams), dict(quantized.configs)
    replacements: dict[str, list[Step]] = {}
    for step in quantized.plan.steps:
        if not isinstance(step, Conv) or not _is_of_8_bits(quantized, step):
            continue
        rows, columns, channels = quantized.plan.shapes[step.inputs[0]]
        map_shape = (rows + sum(step.pads[0]), columns + sum(step.pads[1]), channels)
        if not _pays(step, map_shape):
            continue
        pairs = _Pairs(step, map_shape, quantized)
        replacements[step.output] = pairs.steps()
        qparams |= pairs.qparams
        configs |= pairs.configs
    return replace(
        quantized,
        plan=quantized.plan.replace(replacements),
        qparams=qparams,
        configs=configs,
    )


def _is_of_8_bits(quantized: QuantizedPlan, step: Conv) -> bool:
    config = quantized.config(step)
    if config.weights is None or config.inputs == "float":
        return False
    bits = quantized.qparams[step.inputs[0]].bits if config.inputs == "static" else 8
    return (config.weights.bits, bits) == (8, 8)


def _pays(step: Conv, shape: Shape) -> bool:
    """Returns whether a convolution of a padded map fits pairs, with fewer products."""
    width, channels, stride = step.kernel.shape[1], shape[2], step.strides[1]
    if stride > 2 or width % 2 == 0 or shape[1] % 2:
        return False

    def filled(count: int) -> int:
        return -(-count // _CHANNEL_GROUP) * _CHANNEL_GROUP

    return bool((width + 1) // 2 * filled(2 * channels) < width * filled(channels))


class _Pairs:
    """A convolution over pairs of pixels.

    Args:
        step: the convolution; its kernel has an odd width.
        shape: of its padded input, of even width.
        quantized: the plan that it belongs to.
    """

    def __init__(self, step: Conv, shape: Shape, quantized: QuantizedPlan) -> None:
        self._step = step
        self._padded = shape
        self._quantized = quantized
        self.qparams: dict[str, QuantParams] = {}
        self.configs: dict[str, OpQuantConfig] = {}

    def steps(self) -> list[Step]:
        """Returns the steps in place of the convolution; its output keeps name and shape."""
        step, name = self._step, self._step.output
        rows, columns, channels = self._padded
        x = step.inputs[0]
        expanded: list[Step] = []
        if step.pads != steps.NO_PADS:
            expanded.append(steps.ZeroPad(f"{name}/padded", (x,), step.pads))
            x = expanded[-1].output
        pairs = steps.Reshape(f"{name}/pairs", (x,), (rows, columns // 2, 2 * channels))
        expanded.append(pairs)
        for copied in expanded:
            self._like(copied.output, step.inputs[0], self._config.inputs == "static")
        copies = 2 // step.strides[1]
        bias = None if step.bias is None else np.tile(step.bias, copies)
        conv = replace(
            step,
            output=f"{name}/of_pairs",
            inputs=(pairs.output,),
            kernel=self._kernel(copies),
            bias=bias,
            strides=(step.strides[0], 1),
            pads=steps.NO_PADS,
        )
        weights = self._config.weights
        assert weights is not None
        scale = weights.scale if weights.scale.ndim == 0 else np.tile(weights.scale, copies)
        self._like(conv.output, name, self._config.quantized_output)
        self.configs[conv.output] = replace(self._config, weights=replace(weights, scale=scale))
        self._like(name, name, self._config.quantized_output)
        to = self._quantized.plan.shapes[name]
        return [*expanded, conv, steps.Reshape(name, (conv.output,), to)]

    @property
    def _config(self) -> OpQuantConfig:
        return self._quantized.config(self._step)

    def _like(self, name: str, model: str, quantized: bool) -> None:
        """Notes that a tensor is quantized as another one, by a step that only moves values."""
        self.configs[name] = OpQuantConfig("static", True) if quantized else OpQuantConfig()
        if quantized:
            self.qparams[name] = self._quantized.qparams[model]

    def _kernel(self, copies: int) -> Array:
        """Returns the kernel with pairs of columns as channels, for each pixel of the output."""
        rows, width, channels, outputs = self._step.kernel.shape
        paired = np.zeros((rows, width + 1, channels, copies, outputs))
        for copy in range(copies):
            paired[:, copy : copy + width, :, copy] = self._step.kernel
        return paired.reshape(rows, (width + 1) // 2, 2 * channels, copies * outputs)
