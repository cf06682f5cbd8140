"""Puts a plan on integers: which steps, on which qparams, with which weights."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan, QuantParams
from cct_export.graph.steps import Array, Step
from cct_export.quantize import ranges, rounding
from cct_export.quantize.statistics import Statistics
from cct_export.specs import QuantScheme

# Dense layers with a smaller share of weights and of multiplications stay float where floats are
# allowed: there is nothing to gain, and these are the scores of the pooling and the logits, where
# an error hurts most.
SMALL = 0.01
# Half of what XNNPACK takes.
MOST_RESCALING = 128
# Steps of a grid that a bias may be away from 0.
MOST_STEPS = 2**24
# Integers that a bias is at most, half of what 32 bits hold.
MOST_BIAS = 2**30
# What is largest in a position embedding that float16 holds well enough.
HALF_LEAST, HALF_MOST = 2.0**-10, 65504.0
_CALIBRATED = ("static", "static-inputs")
_MOVING = (steps.Reshape, steps.Transpose, steps.Slice, steps.MaxPool, steps.ZeroPad)


def modes(plan: Plan, scheme: QuantScheme, floats: Collection[str] = ()) -> dict[str, str]:
    """Returns how every step computes, by its output, in the words of ``QuantScheme``.

    Args:
        plan: of steps that the format has.
        scheme: what is asked.
        floats: steps that compute in float whatever the scheme says.
    """
    found: dict[str, str] = {}
    for step in plan.steps:
        mode = scheme.rest
        if isinstance(step, steps.Conv):
            mode = scheme.convolution
        elif isinstance(step, steps.Dense):
            small = is_small(plan, step) and not scheme.integers_only
            mode = "float" if small else scheme.dense
        elif isinstance(step, steps.MatMul) and _makes_scores(plan, step):
            mode = scheme.scores
        elif isinstance(step, steps.MaxPool | steps.ZeroPad):
            # Between integers there is no reason to go back to float.
            mode = "static" if found.get(step.inputs[0]) == "static" else "float"
        found[step.output] = "float" if step.output in floats else mode
    return found


def is_small(plan: Plan, step: steps.Dense) -> bool:
    """Whether a dense layer is too small to be worth quantizing."""
    few_weights = step.kernel.size < SMALL * plan.parameters
    return few_weights and plan.macs(step) < SMALL * plan.total_macs


def _makes_scores(plan: Plan, step: Step) -> bool:
    return isinstance(plan.only_consumer(step.output), steps.Softmax)


def needed(plan: Plan, scheme: QuantScheme) -> set[str]:
    """Returns the tensors whose values have to be known."""
    names = set()
    for output, mode in modes(plan, scheme).items():
        step = plan.producer(output)
        assert step is not None, "a mode of no step"
        if mode in _CALIBRATED:
            names |= set(step.inputs)
        if mode == "static":
            names.add(output)
    for output in rounded(plan, scheme):
        step = plan.producer(output)
        assert step is not None, "no step has rounded weights"
        names |= set(step.inputs)
    return names


def rounded(plan: Plan, scheme: QuantScheme) -> set[str]:
    """Returns the outputs of the steps whose weights become integers."""
    if not scheme.rounds:
        return set()
    weighted = (step for step in plan.steps if isinstance(step, steps.Conv | steps.Dense))
    return {step.output for step in weighted}


def quantize(
    plan: Plan,
    scheme: QuantScheme,
    statistics: Statistics | None,
    methods: str | Mapping[str, str] = "mse",
    learn: bool = True,
    floats: Collection[str] = (),
) -> QuantizedPlan:
    """Returns the plan on integers.

    Args:
        plan: of steps that the format has.
        scheme: what is asked.
        statistics: of the tensors that ``needed`` names; None if the scheme rounds nothing.
        methods: of ``ranges.METHODS``, one for all tensors or one each.
        learn: learn the rounding of weights, else take the nearest integers.
        floats: steps that compute in float whatever the scheme says.
    """
    chosen = modes(plan, scheme, floats)
    configs: dict[str, OpQuantConfig] = {}
    changed: dict[str, list[Step]] = {}
    for step in plan.steps:
        mode = chosen[step.output]
        as_floats = step.output in floats or (
            isinstance(step, steps.Dense) and mode == "float" and is_small(plan, step)
        )
        weighted, constants = (step, None)
        if not as_floats:
            weighted, constants = _constants(step, scheme, mode, statistics, learn)
        half = constants is None and step.output not in floats and _is_halved(step, scheme)
        weighted = _halved(weighted) if half else weighted
        if mode != "float" or constants or half:
            inputs = "static" if mode in _CALIBRATED else mode
            configs[step.output] = OpQuantConfig(inputs, mode == "static", constants, half)
            changed[step.output] = [weighted]
    qparams = {}
    if statistics is not None:
        qparams = _grids(plan, chosen, scheme, statistics, methods, configs)
        if scheme.bits == 8 and _make_room(plan, qparams, configs, changed):
            qparams = _grids(plan, chosen, scheme, statistics, methods, configs)
    return QuantizedPlan(plan.replace(changed), qparams, configs, scheme.rows)


def _make_room(
    plan: Plan,
    qparams: Mapping[str, QuantParams],
    configs: dict[str, OpQuantConfig],
    changed: dict[str, list[Step]],
) -> bool:
    """Widens the weight qparams of channels whose bias would not fit into the sums' 32 bits.

    A bias is stored in steps of the products it is added to; weights that are next to nothing
    make them too fine. Returns whether there were any.
    """
    found = False
    for step in plan.steps:
        config = configs.get(step.output)
        if not isinstance(step, steps.Conv | steps.Dense) or step.bias is None:
            continue
        if config is None or config.inputs != "static" or config.constants is None:
            continue
        least = np.abs(step.bias) / (qparams[step.inputs[0]].scale * MOST_BIAS)
        if (config.constants.scale >= least).all():
            continue
        grid = replace(config.constants, scale=np.maximum(config.constants.scale, least))
        (rounded_step,) = changed[step.output]
        assert isinstance(rounded_step, steps.Conv | steps.Dense), "a step stays what it is"
        narrow = config.constants.scale < least
        kernel = np.where(narrow, grid.snap(step.kernel), rounded_step.kernel)
        changed[step.output] = [replace(rounded_step, kernel=kernel)]
        configs[step.output] = replace(config, constants=grid)
        found = True
    return found


def _is_halved(step: Step, scheme: QuantScheme) -> bool:
    """Whether the constants of a step are float16: all weights, or what is left of them."""
    if isinstance(step, steps.AddConstant):
        in_halves = scheme.rounds or scheme.weights == "float16"
        return in_halves and HALF_LEAST <= float(np.abs(step.value).max()) <= HALF_MOST
    return scheme.weights == "float16" and isinstance(step, steps.Conv | steps.Dense)


def _halved(step: Step) -> Step:
    """Returns a step with its weights rounded to float16."""
    if isinstance(step, steps.AddConstant):
        return replace(step, value=_rounded(step.value))
    assert isinstance(step, steps.Conv | steps.Dense), "one without weights"
    return replace(step, kernel=_rounded(step.kernel))


def _rounded(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float64)


def _constants(
    step: Step,
    scheme: QuantScheme,
    mode: str,
    statistics: Statistics | None,
    learn: bool,
) -> tuple[Step, QuantParams | None]:
    """Returns a step with its constants on a grid, and the grid."""
    if isinstance(step, steps.Conv | steps.Dense):
        if not scheme.rounds:
            return step, None
        assert statistics is not None, "weights are rounded by statistics"
        bits = 4 if scheme.weights == "int4" and isinstance(step, steps.Dense) else 8
        grid = rounding.weight_grid(step.kernel, bits)
        moment = statistics.moments[step.output]
        kernel = (
            rounding.gptq(step.kernel, grid, moment)
            if learn
            else rounding.nearest(step.kernel, grid)
        )
        return replace(step, kernel=kernel), grid
    if mode == "static" and isinstance(step, steps.AddConstant):
        grid = _of_constant(step.value, scheme.bits)
        return replace(step, value=grid.snap(step.value)), grid
    if mode == "static" and isinstance(step, steps.Scale):
        grid = _of_constant(step.scale, scheme.bits)
        return replace(step, scale=grid.snap(step.scale)), grid
    return step, None


def _of_constant(values: Array, bits: int) -> QuantParams:
    top = 2 ** (bits - 1) - 1
    return QuantParams(np.array((float(np.abs(values).max()) or 1.0) / top), 0, -top, top)


def _grids(
    plan: Plan,
    chosen: Mapping[str, str],
    scheme: QuantScheme,
    statistics: Statistics,
    methods: str | Mapping[str, str],
    configs: Mapping[str, OpQuantConfig],
) -> dict[str, QuantParams]:
    """Returns the grid of every tensor that a static step reads or makes."""
    static = [step for step in plan.steps if chosen[step.output] in _CALIBRATED]
    wanted = {name for step in static for name in step.inputs}
    wanted |= {step.output for step in static if chosen[step.output] == "static"}
    # Engines multiply integers with each other fast only if 0 stands for 0 in the second.
    symmetric = {
        _origin(plan, step.inputs[1], chosen) for step in static if isinstance(step, steps.MatMul)
    }
    qparams: dict[str, QuantParams] = {}
    for name in plan.shapes:  # in order, the image first
        if name not in wanted:
            continue
        maker = plan.producer(name)
        if maker is None:
            qparams[name] = pixels(scheme.bits)
        elif isinstance(maker, _MOVING) and chosen[name] == "static":
            qparams[name] = qparams[maker.inputs[0]]
        elif isinstance(maker, steps.Softmax) and chosen[name] == "static":
            qparams[name] = shares(scheme.bits)
        else:
            method = methods if isinstance(methods, str) else methods.get(name, "mse")
            # 16 bits are fine enough to clip nothing.
            method = method if scheme.bits == 8 else "min-max"
            values = statistics.distributions[name]
            range = ranges.METHODS[method](values, scheme.bits)
            grid = ranges.grid(range, scheme.bits, name in symmetric)
            qparams[name] = _coarse_enough(grid, maker, qparams, configs.get(name))
    return qparams


def _coarse_enough(
    grid: QuantParams, maker: Step, qparams: Mapping[str, QuantParams], config: OpQuantConfig | None
) -> QuantParams:
    """Returns a grid whose steps are not too fine for the integers that it is made of.

    Engines bring sums of products to the grid by a factor that must stay below 256, and here stays
    below half of that; what is all but constant over the calibration images would ask for more.
    """
    if config is None or not config.output:
        return grid
    scales = [float(qparams[name].scale) for name in maker.inputs]
    if config.constants is not None and not isinstance(maker, steps.AddConstant):
        scales.append(float(np.max(config.constants.scale)))
    elif isinstance(maker, steps.MeanSquare):
        scales *= 2
    if isinstance(maker, steps.Gelu | steps.Rsqrt):
        return grid  # looked up, not rescaled
    sums = (steps.Add, steps.AddConstant, steps.Subtract)
    alike = isinstance(maker, sums) or type(maker) is steps.Mean
    least = (max(scales) if alike else math.prod(scales)) / MOST_RESCALING
    bias = getattr(maker, "bias", None)
    if bias is not None:  # what ReLU cuts off must fit into the integers before it does
        least = max(least, float(np.abs(bias).max()) / MOST_STEPS)
    return replace(grid, scale=np.maximum(grid.scale, least))


def _origin(plan: Plan, name: str, chosen: Mapping[str, str]) -> str:
    """Returns the tensor whose grid a tensor has: values that only move keep theirs."""
    maker = plan.producer(name)
    if isinstance(maker, _MOVING) and chosen[name] == "static":
        return _origin(plan, maker.inputs[0], chosen)
    return name


def pixels(bits: int) -> QuantParams:
    """Returns the grid of pixels 0–255; of 8 bits it is the pixels themselves."""
    if bits == 8:
        return QuantParams(np.array(1.0), -128, -128, 127)
    return QuantParams(np.array(255 / 32767), 0, -32767, 32767)


def shares(bits: int) -> QuantParams:
    """Returns the grid that LiteRT prescribes for what an integer softmax makes."""
    if bits == 8:
        return QuantParams(np.array(1 / 256), -128, -128, 127)
    return QuantParams(np.array(1 / 32768), 0, -32768, 32767)
