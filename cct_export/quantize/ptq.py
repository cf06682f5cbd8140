"""Post-training quantization of a plan: which steps, with which parameters and weights."""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from cct_export import memory
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Step
from cct_export.quantize import ranges, rounding
from cct_export.quantize.modes import VALUE_PRESERVING, is_small, quantization_modes
from cct_export.quantize.params import (
    activation_params,
    constant_params,
    pixel_params,
    prescribed_output_params,
    without_minimum,
)
from cct_export.quantize.statistics import Statistics, has_moments
from cct_export.specs import CalibrationSpec, QuantScheme
from cct_export.specs.progress import CountProgress, no_progress

# Largest factor by which an accumulator is rescaled to the output, half of what XNNPACK accepts.
MAX_RESCALING = 128
# Largest bias in units of the output's scale.
MAX_BIAS_STEPS = 2**24
# Largest bias in units of the accumulator's scale, half of what 32 bits hold.
MAX_BIAS = 2**30
# Range of the largest absolute value of a position embedding that float16 stores well enough.
FLOAT16_RANGE = (2.0**-10, 65504.0)
# exp of this is a quarter of a step of its 8-bit integers: of smaller values it is 0.
SMALLEST_EXPONENT = -math.log(4 * 255)
# GELU of this is -0.0001, of smaller values nearer to 0.
SMALLEST_GELU_INPUT = -4.0
# Kernels that are larger leave memory behind that is worth returning.
_LARGE_BYTES = 2**20
_DEFAULT = CalibrationSpec()
_STATIC_INPUTS = ("static", "static-inputs")


def calibrated_tensors(plan: Plan, scheme: QuantScheme) -> set[str]:
    """Returns the tensors whose calibration statistics ``quantize`` needs."""
    modes = quantization_modes(plan, scheme)
    tensors = set()
    for step in plan.steps:
        mode = modes[step.output]
        if mode in _STATIC_INPUTS or _has_integer_weights(step, scheme):
            tensors |= set(step.inputs)
        if mode == "static":
            tensors.add(step.output)
    return tensors


def integer_weight_steps(plan: Plan, scheme: QuantScheme) -> set[str]:
    """Returns the outputs of the steps whose second moments ``quantize`` needs."""
    return {
        step.output
        for step in plan.steps
        if _has_integer_weights(step, scheme) and has_moments(step)
    }


def four_bit_steps(
    plan: Plan, scheme: QuantScheme, eight_bit_steps: Collection[str] = ()
) -> dict[str, int]:
    """Returns the dense layers with 4-bit weights, by output, and how many weights each has.

    Args:
        plan: in primitive steps.
        scheme: the quantization scheme.
        eight_bit_steps: outputs of dense layers that have 8 bits instead.
    """
    return {
        step.output: step.kernel.size
        for step in plan.steps
        if scheme.weights == "int4"
        and isinstance(step, steps.Dense)
        and step.output not in eight_bit_steps
        and not is_small(plan, step)
    }


def _has_integer_weights(step: Step, scheme: QuantScheme) -> bool:
    return scheme.quantizes_weights and isinstance(step, steps.Conv | steps.Dense)


def quantize(
    plan: Plan,
    scheme: QuantScheme,
    statistics: Statistics | None,
    calibration: CalibrationSpec = _DEFAULT,
    progress: CountProgress = no_progress,
) -> QuantizedPlan:
    """Quantizes a plan.

    Args:
        plan: in primitive steps.
        scheme: the quantization scheme.
        statistics: of the tensors that ``calibrated_tensors`` names; None if it names none.
        calibration: how ranges and rounding are chosen, and which steps have more precision than
            the scheme says.
        progress: called with the number of steps that are done, and of all.
    """
    quantizer = _Quantizer(plan, scheme, statistics, calibration)
    for done, step in enumerate(plan.steps, start=1):
        quantizer.add(step)
        if isinstance(step, steps.Conv | steps.Dense) and step.kernel.nbytes >= _LARGE_BYTES:
            memory.give_back()  # GPTQ takes several times the kernel
        progress(done, len(plan.steps))
    return QuantizedPlan(
        plan.replace(quantizer.replacements),
        quantizer.qparams,
        quantizer.configs,
        scheme.per_token,
        scheme.symmetric,
    )


class _Quantizer:
    """Quantizes the steps of a plan one by one, in topological order.

    The weights of a step depend on the parameters of its inputs, and those of its output on both.
    See ``quantize`` for the arguments.
    """

    def __init__(
        self,
        plan: Plan,
        scheme: QuantScheme,
        statistics: Statistics | None,
        calibration: CalibrationSpec,
    ) -> None:
        self._plan = plan
        self._scheme = scheme
        self._statistics = statistics or Statistics("no images", 0)
        self._calibration = calibration
        self._modes = quantization_modes(plan, scheme, calibration.floats)
        self._four_bit_steps = four_bit_steps(plan, scheme, calibration.eight_bits)
        static = [step for step in plan.steps if self._modes[step.output] in _STATIC_INPUTS]
        self._quantized_tensors = {name for step in static for name in step.inputs}
        self._quantized_tensors |= {s.output for s in static if self._modes[s.output] == "static"}
        products = [step for step in static if isinstance(step, steps.MatMul)]
        self._first_factors = {self._origin(step.inputs[0]) for step in products}
        # Engines prescribe that a softmax's 0 is -128: values that it weights must not be -128,
        # see ``without_minimum``, and none of the calibration images is when nothing is clipped.
        self._unclipped_tensors = {
            self._origin(step.inputs[1])
            for step in products
            if isinstance(plan.producer(self._origin(step.inputs[0])), steps.Softmax)
            and scheme.integer_ends
        }
        # Engines multiply two quantized activations fast only if the second one is symmetric.
        self._symmetric_tensors = {self._origin(step.inputs[1]) for step in products}
        self.qparams: dict[str, QuantParams] = {}
        self.configs: dict[str, OpQuantConfig] = {}
        self.replacements: dict[str, list[Step]] = {}
        if plan.INPUT in self._quantized_tensors:
            self.qparams[plan.INPUT] = pixel_params(scheme.bits, scheme.symmetric)

    def _origin(self, name: str) -> str:
        """Returns the tensor whose parameters a tensor shares through value-preserving steps."""
        producer = self._plan.producer(name)
        if isinstance(producer, VALUE_PRESERVING) and self._modes[name] == "static":
            return self._origin(producer.inputs[0])
        return name

    def add(self, step: Step) -> None:
        """Quantizes the weights of a step, then its output; those of its inputs are known."""
        mode = self._modes[step.output]
        quantized, weights = self._with_integer_weights(step)
        float16 = weights is None and self._has_float16_weights(step)
        if float16:
            quantized = _with_float16_weights(step)
        if mode != "float" or weights or float16:
            inputs = "static" if mode in _STATIC_INPUTS else mode
            config = OpQuantConfig(inputs, mode == "static", weights, float16)
            self.configs[step.output] = config
            self.replacements[step.output] = [quantized]
        if step.output in self._quantized_tensors:
            self.qparams[step.output] = self._output_params(step, weights)

    def _has_float16_weights(self, step: Step) -> bool:
        """Returns whether a step without integer weights stores them as float16."""
        if step.output in self._calibration.floats:
            return False
        if isinstance(step, steps.AddConstant):
            smallest, largest = FLOAT16_RANGE
            compressed = self._scheme.quantizes_weights or self._scheme.weights == "float16"
            return compressed and smallest <= float(np.abs(step.value).max()) <= largest
        return self._scheme.weights == "float16" and isinstance(step, steps.Conv | steps.Dense)

    def _with_integer_weights(self, step: Step) -> tuple[Step, QuantParams | None]:
        """Returns a step with quantized weights or constants and their parameters, if any."""
        mode = self._modes[step.output]
        if isinstance(step, steps.Conv | steps.Dense):
            if self._keeps_float_weights(step):
                return step, None
            return self._with_quantized_kernel(step)
        if mode == "static" and isinstance(step, steps.AddConstant):
            params = constant_params(step.value, self._scheme.bits)
            return replace(step, value=params.fake_quantize(step.value)), params
        if mode == "static" and isinstance(step, steps.Scale):
            params = constant_params(step.scale, self._scheme.bits)
            return replace(step, scale=params.fake_quantize(step.scale)), params
        if mode == "static" and isinstance(step, steps.LayerNorm):
            return self._with_quantized_norm(step)
        return step, None

    def _with_quantized_norm(self, step: steps.LayerNorm) -> tuple[Step, QuantParams]:
        """Returns a norm with quantized gamma, its beta an integer in units of the products."""
        width = self._plan.shapes[step.output][-1]
        gamma = np.ones(width) if step.gamma is None else step.gamma
        params = activation_params((float(gamma.min()), float(gamma.max())), 8)
        unit = self.qparams[step.inputs[0]].scale * params.scale
        beta = None if step.beta is None else np.rint(step.beta / unit) * unit
        return replace(step, gamma=params.fake_quantize(gamma), beta=beta), params

    def _keeps_float_weights(self, step: steps.Conv | steps.Dense) -> bool:
        if not self._scheme.quantizes_weights or step.output in self._calibration.floats:
            return True
        in_float = self._modes[step.output] == "float"
        return in_float and isinstance(step, steps.Dense) and is_small(self._plan, step)

    def _with_quantized_kernel(self, step: steps.Conv | steps.Dense) -> tuple[Step, QuantParams]:
        """Returns a step with a quantized kernel and bias, and the parameters of the kernel.

        The bias of a static step is an integer in units of the products that it is added to. In
        channels whose weights are so small that it would not fit into the accumulator's 32 bits,
        their scale is widened.
        """
        params = self._weight_params(step)
        if self._calibration.rounding == "gptq" and has_moments(step):
            moments = self._statistics.second_moments[step.output]
            kernel = rounding.gptq(step.kernel, params, moments)
        else:
            kernel = params.fake_quantize(step.kernel)
        mode, bias = self._modes[step.output], step.bias
        if mode not in _STATIC_INPUTS or bias is None:
            return replace(step, kernel=_compact(kernel)), params
        input_scale = self.qparams[step.inputs[0]].scale
        smallest = np.abs(bias) / (input_scale * MAX_BIAS)
        too_fine = params.scale < smallest
        params = replace(params, scale=np.maximum(params.scale, smallest))
        kernel = np.where(too_fine, params.fake_quantize(step.kernel), kernel)
        if mode == "static":
            unit = input_scale * params.scale
            bias = np.rint(bias / unit) * unit
        return replace(step, kernel=_compact(kernel), bias=bias), params

    def _weight_params(self, step: steps.Conv | steps.Dense) -> QuantParams:
        if step.output not in self._four_bit_steps:
            return rounding.weight_params(step.kernel)
        block = self._scheme.block
        # Engines compute blocks in the products of many rows, such as tokens.
        has_rows = len(self._plan.shapes[step.output]) > 1
        fits = block and has_rows and len(step.kernel) % block == 0
        return rounding.weight_params(step.kernel, 4, block if fits else 0)

    def _method_of(self, name: str) -> str:
        methods = self._calibration.methods
        if isinstance(methods, str):
            return methods
        return methods.get(name, CalibrationSpec.default_method)

    def _output_params(self, step: Step, weights: QuantParams | None) -> QuantParams:
        """Returns the parameters of a step's output.

        Args:
            step: whose inputs have parameters already, if it is static.
            weights: the parameters of its weights; None for float.
        """
        name, bits = step.output, self._scheme.bits
        static = self._modes[name] == "static"
        if static and isinstance(step, VALUE_PRESERVING):
            return self.qparams[step.inputs[0]]
        prescribed = prescribed_output_params(step, bits, self._scheme.symmetric)
        if static and prescribed is not None:
            return prescribed
        # 16 bits are fine enough to clip nothing.
        method = self._method_of(name) if bits == 8 else "min-max"
        if name in self._unclipped_tensors:
            method = "min-max"
        value_range = ranges.METHODS[method](self._statistics.histograms[name], bits)
        consumer = self._plan.only_consumer(name)
        if isinstance(consumer, steps.Exp):
            value_range = (max(value_range[0], SMALLEST_EXPONENT), 0.0)
        elif isinstance(consumer, steps.Gelu) and bits == 8:
            value_range = (max(value_range[0], SMALLEST_GELU_INPUT), value_range[1])
        symmetric = self._scheme.symmetric or name in self._symmetric_tensors
        params = activation_params(value_range, bits, symmetric)
        if name in self._first_factors and params.zero_point == params.qmin:
            params = without_minimum(params)
        if not static:
            return params
        scales = [float(self.qparams[source].scale) for source in step.inputs]
        return replace(params, scale=np.maximum(params.scale, _min_scale(step, scales, weights)))


def _min_scale(step: Step, input_scales: list[float], weights: QuantParams | None) -> float:
    """Returns the smallest scale that engines accept for the output of a static step.

    Engines rescale accumulators to the output by a factor that must be below 256; this keeps it
    below half of that. An output that is almost constant over the calibration images would need
    more.
    """
    if isinstance(step, steps.Gelu | steps.Rsqrt | steps.Exp | steps.LayerNorm):
        return 0.0  # a lookup table, or a scale of each token: no accumulator is rescaled
    scales = list(input_scales)
    if weights is not None and not isinstance(step, steps.AddConstant):
        scales.append(float(np.max(weights.scale)))
    elif isinstance(step, steps.MeanSquare):
        scales *= 2
    sums = isinstance(step, steps.Add | steps.AddConstant | steps.Subtract)
    same_unit = sums or type(step) is steps.Mean
    smallest = (max(scales) if same_unit else math.prod(scales)) / MAX_RESCALING
    bias = step.bias if isinstance(step, steps.Conv | steps.Dense) else None
    if bias is not None:  # values that ReLU clips must fit into the integers before it
        smallest = max(smallest, float(np.abs(bias).max()) / MAX_BIAS_STEPS)
    return smallest


def _with_float16_weights(step: Step) -> Step:
    """Returns a step with its weights rounded to float16."""
    if isinstance(step, steps.AddConstant):
        return replace(step, value=_float16(step.value))
    if isinstance(step, steps.Conv | steps.Dense):
        return replace(step, kernel=_float16(step.kernel))
    return step


def _compact(kernel: Array) -> Array:
    """Returns a fake-quantized kernel as float32: its integers follow from it all the same."""
    return kernel.astype(np.float32)  # type: ignore[return-value]


def _float16(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float64)
