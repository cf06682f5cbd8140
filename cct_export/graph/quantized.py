"""A plan with integers in place of reals: which tensors are stored on which grid, and how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cct_export.graph.interpret import compute
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Array, Conv, Rsqrt, Step


@dataclass(frozen=True, eq=False)
class QuantParams:
    """The reals that integers stand for: ``scale · (integer − zero_point)``.

    Attributes:
        scale: one for all, ``()``, or one per channel of the last axis, ``(channels,)``.
        zero_point: the integer that stands for 0.
        low: smallest integer.
        high: largest integer.
    """

    scale: Array
    zero_point: int = 0
    low: int = -127
    high: int = 127

    @property
    def bits(self) -> int:
        """Bits of an integer: 4, 8 or 16."""
        return next(bits for bits in (4, 8, 16) if self.high < 2 ** (bits - 1))

    @property
    def smallest(self) -> Array:
        """The smallest real that has an integer."""
        return self.scale * (self.low - self.zero_point)

    @property
    def largest(self) -> Array:
        """The largest real that has an integer."""
        return self.scale * (self.high - self.zero_point)

    def integers(self, x: Array) -> Array:
        """Returns the nearest integers, as float64."""
        nearest: Array = np.clip(np.rint(x / self.scale) + self.zero_point, self.low, self.high)
        return nearest

    def snap(self, x: Array) -> Array:
        """Returns the nearest reals that have an integer."""
        return (self.integers(x) - self.zero_point) * self.scale


@dataclass(frozen=True, eq=False)
class OpQuantConfig:
    """How one step computes.

    Attributes:
        inputs: ``float``; ``static``, on qparams known beforehand; or ``dynamic``, on a grid found
            at run time for each row, or each image.
        output: whether the result is put on its grid.
        constants: grid of the kernel or of another constant; None for floats.
        half: whether the constants are float16.
    """

    inputs: str = "float"
    output: bool = False
    constants: QuantParams | None = None
    half: bool = False

    @property
    def has_integers(self) -> bool:
        """Whether anything the step reads, makes or holds is an integer."""
        return self.inputs != "float" or self.output or self.constants is not None


FLOAT = OpQuantConfig()


@dataclass(frozen=True, eq=False)
class QuantizedPlan:
    """A plan of steps that formats have, and how each of them computes.

    Attributes:
        plan: its kernels lie on their qparams already.
        qparams: of tensors; of every one that a config puts on its grid.
        configs: by the output of the step; a step that is missing computes in float.
        rows: whether a dynamic dense layer has a grid for every row, else for every image.
    """

    plan: Plan
    qparams: Mapping[str, QuantParams] = field(default_factory=dict)
    configs: Mapping[str, OpQuantConfig] = field(default_factory=dict)
    rows: bool = True

    def config(self, step: Step) -> OpQuantConfig:
        """Returns how a step computes."""
        return self.configs.get(step.output, FLOAT)

    def in_integers(self, bits: int) -> bool:
        """Whether every step reads and makes integers of so many bits."""
        return all(
            self.config(step).inputs == "static"
            and self.config(step).output
            and self.qparams[step.output].bits == bits
            for step in self.plan.steps
        )

    def shift(self, step: Rsqrt) -> float:
        """Returns what integers add in place of epsilon: nothing if they are too coarse for it.

        LiteRT refuses 1/sqrt(0) in 16 bits, so there it is one step of the grid at least.
        """
        grid = self.qparams[step.inputs[0]]
        finest = float(grid.scale)
        if step.epsilon >= finest / 2:
            return float(np.rint(step.epsilon / finest)) * finest
        return finest if grid.bits == 16 else 0.0

    def compute(self, step: Step, *inputs: Array) -> Array:
        """Returns what a step makes of its inputs, as integer arithmetic would.

        Accumulation is exact in integers, and in float64 as good as.
        """
        config = self.config(step)
        if config.inputs == "static":
            inputs = tuple(
                self.qparams[name].snap(x) for name, x in zip(step.inputs, inputs, strict=True)
            )
        elif config.inputs == "dynamic":
            by_row = self.rows and not isinstance(step, Conv)
            inputs = tuple(_dynamic(x, 1 if by_row else x.ndim - 1) for x in inputs)
        if config.inputs == "static" and isinstance(step, Rsqrt):
            grid = self.qparams[step.inputs[0]]
            inputs = (grid.snap(inputs[0] + self.shift(step)),)
            step = replace(step, epsilon=0.0)
        with np.errstate(divide="ignore"):  # 1/sqrt(0) is beyond the grid, whose end it becomes
            result = compute(step, *inputs)
        return self.qparams[step.output].snap(result) if config.output else result


def _dynamic(x: Array, axes: int) -> Array:
    """Returns values on a grid of 8 bits that spans those of the last ``axes`` axes."""
    over = tuple(range(-axes, 0))
    low = np.minimum(x.min(over, keepdims=True), 0)
    high = np.maximum(x.max(over, keepdims=True), 0)
    scale = np.where(high > low, high - low, 1) / 255
    zero_point = np.rint(-128 - low / scale)
    snapped: Array = (np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point) * scale
    return snapped


def tensors(
    plan: QuantizedPlan | Plan,
    images: np.ndarray,
    seen: Callable[[str, Array], None] = lambda name, x: None,
) -> Array:
    """Computes a plan step by step.

    Args:
        plan: quantized or not.
        images: ``(N, H, W, C)``, 0–255.
        seen: called with name and value of every tensor, the image first.

    Returns:
        The logits, float64 ``(N, classes)``.
    """
    whole = plan if isinstance(plan, QuantizedPlan) else QuantizedPlan(plan)
    values = {whole.plan.INPUT: np.asarray(images, np.float64)}
    seen(whole.plan.INPUT, values[whole.plan.INPUT])
    left = {name: len(whole.plan.consumers(name)) for name in whole.plan.shapes}
    for step in whole.plan.steps:
        values[step.output] = whole.compute(step, *(values[name] for name in step.inputs))
        seen(step.output, values[step.output])
        for name in set(step.inputs):
            left[name] -= 1
            if not left[name]:
                del values[name]
    return values[whole.plan.output]
