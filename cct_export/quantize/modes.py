"""How the steps of a plan compute in a quantization scheme: in integers or in float."""

from collections.abc import Collection

from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.steps import Step
from cct_export.specs import QuantScheme

# Dense layers with a smaller share of weights and of multiplications stay float where the scheme
# allows it: they gain little, and errors in the scores of the pooling and in the logits hurt most.
MIN_SHARE = 0.01
# Larger ones are never small: in a large model the projections of attention have a smaller share
# each, and a quarter of the weights together.
_MAX_SMALL = 2**16
# Convolutions of fewer channels are those that the scheme calls the first.
FEW_CHANNELS = 16
# Their output has the parameters of their input.
VALUE_PRESERVING = (
    steps.Reshape, steps.Transpose, steps.Slice, steps.Gather, steps.MaxPool, steps.ZeroPad,
    steps.AveragePool, steps.Resize, steps.Maximum,
)  # fmt: skip
# They bring the queries, keys and values to their products.
_BETWEEN = (steps.Reshape, steps.Transpose, steps.Slice, steps.Scale)


def quantization_modes(
    plan: Plan, scheme: QuantScheme, float_steps: Collection[str] = ()
) -> dict[str, str]:
    """Returns how every step computes, by its output, in the terms of ``QuantScheme``.

    Args:
        plan: in primitive steps.
        scheme: the quantization scheme.
        float_steps: outputs of steps that compute in float regardless of the scheme.
    """
    integer_steps = attention_steps(plan, scheme.attention)
    if scheme.attention == "static":
        integer_steps |= _before_gelu(plan)
    modes: dict[str, str] = {}
    for step in plan.steps:
        mode = scheme.rest
        if step.output in float_steps:
            mode = "float"
        elif isinstance(step, steps.Conv):
            wide = scheme.convolution == "dynamic" and _has_wide_maps(plan, step)
            few = step.kernel.shape[2] < FEW_CHANNELS
            mode = ((few or wide) and scheme.first_convolution) or scheme.convolution
        elif isinstance(step, steps.Dense) and is_small(plan, step) and not scheme.integers_only:
            mode = "float"
        elif step.output in integer_steps:
            mode = "static"
        elif scheme.attention == "dynamic" and _is_large_product(plan, step):
            mode = "dynamic"
        elif isinstance(step, steps.Dense):
            mode = scheme.dense
        elif isinstance(step, steps.MaxPool | steps.ZeroPad | steps.Gather):
            # Dequantizing between integers would gain nothing. Means are more exact in float, and
            # LiteRT's delegate has no integer average pool.
            mode = "static" if modes.get(step.inputs[0]) == "static" else scheme.rest
        modes[step.output] = mode
    return modes


def _has_wide_maps(plan: Plan, step: steps.Conv) -> bool:
    """Returns whether the pixels of all windows, four bytes each, take more than integers save.

    ONNX files compute a convolution with dynamic ranges by naming these pixels.
    """
    rows, columns, _ = plan.shapes[step.output]
    height, width = step.kernel.shape[:2]
    return bool(4 * rows * columns * height * width > 3 * step.kernel.size)


def is_small(plan: Plan, step: steps.Dense) -> bool:
    """Returns whether a dense layer is too small to be worth quantizing."""
    few_weights = step.kernel.size < min(MIN_SHARE * plan.parameters, _MAX_SMALL)
    return few_weights and plan.macs(step) < MIN_SHARE * plan.total_macs


def _is_large_product(plan: Plan, step: Step) -> bool:
    """Returns whether a step multiplies two matrices and is large enough to be worth quantizing."""
    if not isinstance(step, steps.MatMul) or len(plan.shapes[step.output]) != 2:
        return False
    return plan.macs(step) >= MIN_SHARE * plan.total_macs


def attention_steps(plan: Plan, extent: str) -> set[str]:
    """Returns the outputs of the steps of attention that compute in calibrated integers.

    Args:
        plan: in primitive steps.
        extent: ``QuantScheme.attention``.
    """
    if extent in ("float", "dynamic"):
        return set()
    products = [step for step in plan.steps if isinstance(step, steps.MatMul)]
    scores = [step for step in products if _is_score_product(plan, step)]
    outputs = {step.output for step in scores}
    if extent == "scores":
        return outputs
    for step in scores:
        outputs |= _sources(plan, step.inputs[0]) | _sources(plan, step.inputs[1])
    for step in products:
        if _is_weighted_sum(plan, step):
            outputs |= {step.output} | _sources(plan, step.inputs[1])
            outputs |= _projection(plan, step.output)
    return outputs


def _before_gelu(plan: Plan) -> set[str]:
    """Returns the dense layers that a GELU reads."""
    inputs = {step.inputs[0] for step in plan.steps if isinstance(step, steps.Gelu)}
    return {step.output for step in plan.steps if isinstance(step, steps.Dense)} & inputs


def _is_score_product(plan: Plan, step: steps.MatMul) -> bool:
    return isinstance(plan.only_consumer(step.output), steps.Softmax)


def _is_weighted_sum(plan: Plan, step: steps.MatMul) -> bool:
    """Returns whether a product sums values by the weights of a softmax, of several tokens."""
    weights = plan.producer(step.inputs[0])
    while isinstance(weights, steps.Reshape | steps.Transpose):
        weights = plan.producer(weights.inputs[0])
    return isinstance(weights, steps.Softmax) and plan.shapes[step.output][-2] > 1


def _sources(plan: Plan, name: str) -> set[str]:
    """Returns the steps from a dense layer to a product; none if there is no dense layer."""
    path: set[str] = set()
    step: Step | None = plan.producer(name)
    while isinstance(step, _BETWEEN):
        path.add(step.output)
        step = plan.producer(step.inputs[0])
    return path | {step.output} if isinstance(step, steps.Dense) else set()


def _projection(plan: Plan, name: str) -> set[str]:
    """Returns the steps from a product to the dense layer that reads it alone; none without."""
    path: set[str] = set()
    step = plan.only_consumer(name)
    while isinstance(step, _BETWEEN):
        path.add(step.output)
        step = plan.only_consumer(step.output)
    return path | {step.output} if isinstance(step, steps.Dense) else set()
