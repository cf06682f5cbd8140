"""Exact algebra on a plan: fewer steps and fewer multiplications, the same function.

Each pass takes a plan and returns one that is equal in exact arithmetic; its docstring says why.
They are done in this order, because what one folds another can fold further.
"""

from collections.abc import Callable, Collection

from cct_export.errors import InvalidRequest
from cct_export.graph.fold import attention, norms, tokenizer
from cct_export.graph.plan import Plan

PASSES: dict[str, Callable[[Plan], Plan]] = {
    "rescaling": tokenizer.rescaling,
    "pool-padding": tokenizer.pool_padding,
    "norm-affine": norms.norm_affine,
    "query-scale": attention.query_scale,
    "key-bias": attention.key_bias,
    "value-bias": attention.value_bias,
    "query-key": attention.query_key,
    "value-output": attention.value_output,
    "fuse-qkv": attention.fuse_qkv,
    "pooling-bias": norms.pooling_bias,
    "centred-residual": norms.centred_residual,
}


def check_names(names: Collection[str]) -> None:
    """Refuses a name that no pass has.

    Raises:
        InvalidRequest: there is no pass of such a name.
    """
    for name in names:
        if name not in PASSES:
            raise InvalidRequest(f"no fold is called {name!r}: there is {', '.join(PASSES)}")


def fold(plan: Plan, without: Collection[str] = ()) -> Plan:
    """Returns ``plan`` after every pass.

    Args:
        plan: what ``lower`` gives.
        without: names of passes to leave out.

    Raises:
        InvalidRequest: there is no pass of such a name.
    """
    check_names(without)
    for name, change in PASSES.items():
        if name not in without:
            plan = change(plan)
    return plan
