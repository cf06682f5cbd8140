"""A quantized plan: quantization parameters of tensors, and simulated quantized inference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cct_export.graph.interpret import compute
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Conv, Rsqrt, Step


@dataclass(frozen=True, eq=False)
class QuantParams:
    """Affine quantization parameters: ``real = scale · (integer − zero_point)``.

    Attributes:
        scale: per tensor, ``()``; per channel of the last axis, ``(channels,)``; or, of a matrix,
            per block of rows and channel, ``(blocks, channels)``.
        zero_point: the integer that represents 0.
        qmin: smallest integer.
        qmax: largest integer.
    """

    scale: Array
    zero_point: int = 0
    qmin: int = -127
    qmax: int = 127

    @property
    def bits(self) -> int:
        """Bits of an integer: 4, 8 or 16."""
        return next(bits for bits in (4, 8, 16) if self.qmax < 2 ** (bits - 1))

    @property
    def min_value(self) -> Array:
        """The smallest representable real."""
        return self.scale * (self.qmin - self.zero_point)

    @property
    def max_value(self) -> Array:
        """The largest representable real."""
        return self.scale * (self.qmax - self.zero_point)

    def quantize(self, x: Array) -> Array:
        """Returns the nearest integers, as float64."""
        integers = np.rint(x / self._scale_of(x)) + self.zero_point
        clipped: Array = np.clip(integers, self.qmin, self.qmax)
        return clipped

    def fake_quantize(self, x: Array) -> Array:
        """Returns the nearest representable reals: quantized and dequantized."""
        return (self.quantize(x) - self.zero_point) * self._scale_of(x)

    def _scale_of(self, x: Array) -> Array:
        """Returns the scale of every row of a matrix, where it is per block; else the scale."""
        if self.scale.ndim < 2:
            return self.scale
        return np.repeat(self.scale, len(x) // len(self.scale), axis=0)

    def row(self, index: int, rows: int) -> "QuantParams":
        """Returns the parameters of one of ``rows`` rows of a matrix."""
        if self.scale.ndim < 2:
            return self
        return replace(self, scale=self.scale[index * len(self.scale) // rows])


@dataclass(frozen=True, eq=False)
class OpQuantConfig:
    """How one step is quantized.

    Attributes:
        inputs: ``float``; ``static``, quantized with calibrated parameters; or ``dynamic``,
            quantized with parameters computed at run time per token, or per image.
        quantized_output: whether the output is quantized.
        weights: parameters of the quantized kernel or other constant; None for float.
        float16_weights: whether the kernel or constant is stored as float16.
    """

    inputs: str = "float"
    quantized_output: bool = False
    weights: QuantParams | None = None
    float16_weights: bool = False

    @property
    def has_integers(self) -> bool:
        """Whether inputs, output or weights are integers."""
        return self.inputs != "float" or self.quantized_output or self.weights is not None


FLOAT = OpQuantConfig()


@dataclass(frozen=True, eq=False)
class QuantizedPlan:
    """A plan of primitive steps, and how each of them is quantized.

    Attributes:
        plan: its quantized constants are representable reals already, kernels as float32.
        qparams: by tensor; every quantized tensor has an entry.
        configs: by output of the step; a step without an entry computes in float.
        per_token: whether dynamic dense layers have parameters per token, else per image.
        symmetric: whether the zero point of dynamic ranges is 0.
    """

    plan: Plan
    qparams: Mapping[str, QuantParams] = field(default_factory=dict)
    configs: Mapping[str, OpQuantConfig] = field(default_factory=dict)
    per_token: bool = True
    symmetric: bool = False

    def config(self, step: Step) -> OpQuantConfig:
        """Returns how a step is quantized."""
        return self.configs.get(step.output, FLOAT)

    def is_integer_only(self, bits: int) -> bool:
        """Whether every step consumes and produces integers of ``bits`` bits."""
        return all(
            self.config(step).inputs == "static"
            and self.config(step).quantized_output
            and self.qparams[step.output].bits == bits
            for step in self.plan.steps
        )

    def integer_epsilon(self, step: Rsqrt) -> float:
        """Returns the representable real nearest to epsilon; 0 if the scale is too coarse.

        LiteRT refuses 1/sqrt(0) in 16 bits, so with these it is at least the scale.
        """
        params = self.qparams[step.inputs[0]]
        scale = float(params.scale)
        if step.epsilon >= scale / 2:
            return float(np.rint(step.epsilon / scale)) * scale
        return scale if params.bits == 16 else 0.0

    def compute(self, step: Step, *inputs: Array) -> Array:
        """Returns the output of a step, as integer arithmetic would compute it.

        Integers accumulate exactly; float64 accumulates as good as exactly.
        """
        config = self.config(step)
        if config.inputs == "static":
            inputs = tuple(
                self.qparams[name].fake_quantize(x)
                for name, x in zip(step.inputs, inputs, strict=True)
            )
        elif config.inputs == "dynamic":
            by_token = self.per_token and (not isinstance(step, Conv) or _is_dense(step))
            inputs = tuple(
                _dynamic_fake_quantize(x, 1 if by_token else x.ndim - 1, self.symmetric)
                for x in inputs
            )
        elif config.weights is not None and config.weights.scale.ndim == 2:
            # ONNX Runtime's MatMulNBits quantizes its input in the blocks of the weights.
            blocks = len(config.weights.scale)
            inputs = tuple(_fake_quantize_blocks(x, blocks) for x in inputs)
        if config.inputs == "static" and isinstance(step, Rsqrt):
            params = self.qparams[step.inputs[0]]
            inputs = (params.fake_quantize(inputs[0] + self.integer_epsilon(step)),)
            step = replace(step, epsilon=0.0)
        with np.errstate(divide="ignore"):  # 1/sqrt(0) saturates at the largest integer
            result = compute(step, *inputs)
        return (
            self.qparams[step.output].fake_quantize(result) if config.quantized_output else result
        )


def _fake_quantize_blocks(x: Array, blocks: int) -> Array:
    """Quantizes and dequantizes every block of the last axis to 8 bits, by its largest value."""
    parts = x.reshape(*x.shape[:-1], blocks, -1)
    largest = np.abs(parts).max(-1, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / 127
    reals: Array = (np.rint(parts / scale) * scale).reshape(x.shape)
    return reals


def _is_dense(step: Conv) -> bool:
    """Returns whether a convolution is a dense layer on every pixel; XNNPACK computes it as one."""
    return step.kernel.shape[:2] == (1, 1) and step.strides == (1, 1)


def _dynamic_fake_quantize(x: Array, axes: int, symmetric: bool) -> Array:
    """Quantizes and dequantizes to 8 bits over the range of the last ``axes`` axes."""
    over = tuple(range(-axes, 0))
    if symmetric:
        largest = np.abs(x).max(over, keepdims=True)
        unit = np.where(largest > 0, largest, 1) / 127
        symmetric_reals: Array = np.rint(x / unit) * unit
        return symmetric_reals
    low = np.minimum(x.min(over, keepdims=True), 0)
    high = np.maximum(x.max(over, keepdims=True), 0)
    scale = np.where(high > low, high - low, 1) / 255
    zero_point = np.rint(-128 - low / scale)
    integers = np.clip(np.rint(x / scale) + zero_point, -128, 127)
    reals: Array = (integers - zero_point) * scale
    return reals


def evaluate(
    plan: QuantizedPlan | Plan,
    images: np.ndarray,
    observer: Callable[[str, Array], None] = lambda name, x: None,
) -> Array:
    """Runs a plan step by step.

    Args:
        plan: quantized or not, folded or not.
        images: ``(N, H, W, C)``, 0–255, of any type.
        observer: called with name and value of every tensor, the image first.

    Returns:
        The logits, float64 ``(N, classes)``.
    """
    quantized = plan if isinstance(plan, QuantizedPlan) else QuantizedPlan(plan)
    plan = quantized.plan
    tensors = {plan.INPUT: np.asarray(images, np.float64)}
    observer(plan.INPUT, tensors[plan.INPUT])
    pending = {name: len(plan.consumers(name)) for name in plan.shapes}
    for step in plan.steps:
        tensors[step.output] = quantized.compute(step, *(tensors[name] for name in step.inputs))
        observer(step.output, tensors[step.output])
        for name in set(step.inputs):
            pending[name] -= 1
            if not pending[name]:
                del tensors[name]
    return tensors[plan.output]
