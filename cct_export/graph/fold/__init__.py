"""Exact algebraic folds of a plan: fewer steps and multiplications, the same function.

Each pass returns a plan that is equal in exact arithmetic; its docstring says why. The order of
``PASSES`` matters: a pass can enable the next.
"""

from collections.abc import Callable, Collection

from cct_export.graph.fold import attention, norms, residual, tokenizer, weights, winograd
from cct_export.graph.plan import Plan
from cct_export.names import choose

PASSES: dict[str, Callable[[Plan], Plan]] = {
    "channel-order": weights.channel_order,
    "batch-norm": weights.batch_norm,
    "relu": weights.relu,
    "pool-padding": tokenizer.pool_padding,
    "rescaling": tokenizer.rescaling,
    "norm-affine": norms.norm_affine,
    "query-scale": attention.query_scale,
    "key-bias": attention.key_bias,
    "value-bias": attention.value_bias,
    "query-key": attention.query_key,
    "value-output": attention.value_output,
    "fuse-qkv": attention.fuse_qkv,
    "pooling-bias": norms.pooling_bias,
    "residual-sources": residual.residual_sources,
    "centred-residual": residual.centred_residual,
    "rotation": residual.rotation,
    "head-rotation": attention.head_rotation,
    "winograd": winograd.winograd,
}
# Passes that serve the rounding of 8-bit integers, at the cost of multiplications.
FOR_8_BITS = ("residual-sources", "rotation")
# Passes that serve engines without such an algorithm, in float32, at the cost of weights.
FOR_FLOAT32 = ("winograd",)


def fold(plan: Plan, without: Collection[str] = (*FOR_8_BITS, *FOR_FLOAT32)) -> Plan:
    """Returns the plan after the passes.

    Args:
        plan: unfolded, as ``lower`` and ``lower_model`` return it.
        without: names of passes to leave out; by default those that serve some schemes only.

    Raises:
        InvalidRequest: ``without`` has a name that no pass has.
    """
    # What folds compute is exact to float64, and a plan that is kept may be narrower.
    plan = plan.widened()
    omitted = {choose(name, PASSES, what="fold") for name in without}
    for name, run in PASSES.items():
        if name not in omitted:
            plan = run(plan)
    return plan
