"""``--calibrate best``: for each tensor the calibration method that costs the logits least."""

from collections.abc import Mapping

import numpy as np

from cct_export.data.dataset import Images
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import Draft
from cct_export.export.sensitivity import logits_of
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan
from cct_export.specs import METHODS, CalibrationSpec

# Images that decide for each tensor; between equals the order of the methods does.
SAMPLES = 16


def best_methods(draft: Draft, images: Images) -> dict[str, str]:
    """Returns the best calibration method for every tensor with a calibrated range.

    Each tensor is quantized by each method, all others staying in float; the one with the highest
    SQNR of the logits is chosen. What is best alone need not be best together: where one method
    for all tensors does better, that one is chosen for all.

    Args:
        draft: what is quantized.
        images: uint8 ``(N, H, W, C)``; the first ``SAMPLES`` decide for each tensor, all for the
            comparison of methods.
    """
    few = images[:SAMPLES]
    reference = logits_of(QuantizedPlan(draft.plan), few)
    plans = {name: draft.quantized(CalibrationSpec(methods=name)) for name in METHODS}
    methods: dict[str, str] = {}
    for step in draft.plan.steps:
        name = step.output
        candidates = [plan.qparams.get(name) for plan in plans.values()]
        if len({float(params.scale) for params in candidates if params is not None}) < 2:
            continue
        config = {name: OpQuantConfig(quantized_output=True)}
        sqnrs = [
            logits_sqnr_db(
                reference, logits_of(QuantizedPlan(draft.plan, {name: params}, config), few)
            )
            for params in candidates
            if params is not None
        ]
        methods[name] = METHODS[int(np.argmax(sqnrs))]
    return _or_one_for_all(draft, plans, methods, images)


def _or_one_for_all(
    draft: Draft, plans: Mapping[str, QuantizedPlan], methods: dict[str, str], images: Images
) -> dict[str, str]:
    """Returns ``methods``, or one method for all tensors if that does better on all images."""
    reference = logits_of(QuantizedPlan(draft.plan), images)

    def sqnr_db(plan: QuantizedPlan) -> float:
        return logits_sqnr_db(reference, logits_of(plan, images))

    sqnrs = {name: sqnr_db(plan) for name, plan in plans.items()}
    best = max(sqnrs, key=lambda name: sqnrs[name])
    if sqnrs[best] > sqnr_db(draft.quantized(CalibrationSpec(methods=methods))):
        return dict.fromkeys(methods, best)
    return methods
