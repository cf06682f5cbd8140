"""The range of each tensor that harms the logits least."""

from collections.abc import Mapping

import numpy as np

from cct_export.data.dataset import Images
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import Draft
from cct_export.export.sensitivity import logits
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan
from cct_export.specs import METHODS, CalibrationSpec

# Images that decide; the order of the methods settles between equals.
IMAGES = 16


def best(draft: Draft, images: Images) -> dict[str, str]:
    """Returns the best method for every tensor that calibration gives a grid.

    Each tensor is put on the grid of each method, all others staying float; the one whose logits
    differ least is taken. What is best alone need not be best together: where all tensors on
    qparams of one method do better, that method is taken for all.

    Args:
        draft: what is quantized.
        images: uint8 ``(N, H, W, C)``; the first ``IMAGES`` decide for each tensor, all together.
    """
    chosen = images[:IMAGES]
    wanted = logits(QuantizedPlan(draft.plan), chosen)
    plans = {name: draft.quantized(CalibrationSpec(methods=name)) for name in METHODS}
    found: dict[str, str] = {}
    for step in draft.plan.steps:
        name = step.output
        qparams = {method: plan.qparams.get(name) for method, plan in plans.items()}
        scales = {float(grid.scale) for grid in qparams.values() if grid is not None}
        if len(scales) < 2:
            continue
        put = {name: OpQuantConfig(output=True)}
        ratios = [
            logits_sqnr_db(wanted, logits(QuantizedPlan(draft.plan, {name: grid}, put), chosen))
            for grid in qparams.values()
            if grid is not None
        ]
        found[name] = METHODS[int(np.argmax(ratios))]
    return _best_together(draft, plans, found, images)


def _best_together(
    draft: Draft, plans: Mapping[str, QuantizedPlan], found: dict[str, str], images: Images
) -> dict[str, str]:
    """Returns ``found``, or one method for all tensors if that does better on all images."""
    wanted = logits(QuantizedPlan(draft.plan), images)
    mixed = logits(draft.quantized(CalibrationSpec(methods=found)), images)
    alone = {name: logits_sqnr_db(wanted, logits(plan, images)) for name, plan in plans.items()}
    winner = max(alone, key=lambda name: alone[name])
    if alone[winner] > logits_sqnr_db(wanted, mixed):
        return dict.fromkeys(found, winner)
    return found
