"""Where a quantized plan loses accuracy, step by step."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cct_export.data.dataset import Images
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import Draft
from cct_export.graph.quantized import QuantizedPlan, tensors
from cct_export.graph.steps import Array, Step
from cct_export.quantize.ranges import clipped_share
from cct_export.quantize.statistics import BATCH
from cct_export.records import StepError

Progress = Callable[[int, int], None]


def _quietly(done: int, of: int) -> None:
    """Default progress: none."""


def logits(plan: QuantizedPlan, images: Images) -> Array:
    """Returns what a plan answers, float64 ``(N, classes)``."""
    parts = [tensors(plan, images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    return np.concatenate(parts)


def errors(
    draft: Draft,
    quantized: QuantizedPlan,
    images: Images,
    sensitivity: bool = False,
    progress: Progress = _quietly,
) -> list[StepError]:
    """Compares every tensor of a quantized plan with that of the float plan.

    Args:
        draft: the float plan.
        quantized: the same on integers.
        images: uint8 ``(N, H, W, C)``.
        sensitivity: also find what each step does to the logits, alone and left out.
        progress: called with the number of steps done and of all.

    Returns:
        A record for every step that reads or makes integers or has integer weights, in order.
    """
    noise: dict[str, list[float]] = {}
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        floats: dict[str, Array] = {}
        tensors(draft.plan, chunk, floats.__setitem__)

        def compare(name: str, x: Array, floats: dict[str, Array] = floats) -> None:
            sums = noise.setdefault(name, [0.0, 0.0])
            true = floats[name]
            sums[0] += float(np.sum(true**2))
            sums[1] += float(np.sum((true - x) ** 2))

        tensors(quantized, chunk, compare)
    touched = [step for step in draft.plan.steps if quantized.config(step).has_integers]
    wanted = logits(QuantizedPlan(draft.plan), images) if sensitivity else None
    found = []
    for index, step in enumerate(touched):
        record = _record(draft, quantized, step, noise[step.output])
        if wanted is not None:
            alone = logits(only(draft, quantized, step), images)
            without = logits(all_but(draft, quantized, step), images)
            record = replace(
                record,
                alone_db=logits_sqnr_db(wanted, alone),
                without_db=logits_sqnr_db(wanted, without),
            )
        found.append(record)
        progress(index + 1, len(touched))
    return found


def _record(draft: Draft, quantized: QuantizedPlan, step: Step, sums: list[float]) -> StepError:
    signal, noise = sums
    config = quantized.config(step)
    assert draft.statistics is not None, "a quantized plan was calibrated"
    values = draft.statistics.distributions[step.output]
    grid = quantized.qparams[step.output] if config.output else None
    return StepError(
        step=step.output,
        kind=step.kind,
        inputs=config.inputs,
        weight_bits=None if config.constants is None else config.constants.bits,
        sqnr_db=10 * math.log10(signal / noise) if signal and noise else math.inf,
        low=values.low,
        high=values.high,
        grid_low=None if grid is None else float(grid.smallest),
        grid_high=None if grid is None else float(grid.largest),
        clipped=None if grid is None else clipped_share(values, grid),
    )


def only(draft: Draft, quantized: QuantizedPlan, step: Step) -> QuantizedPlan:
    """Returns the float plan with one step quantized."""
    treated = quantized.plan.producer(step.output)
    assert treated is not None, "both plans have the same steps"
    plan = draft.plan.replace({step.output: [treated]})
    configs = {step.output: quantized.configs[step.output]}
    return QuantizedPlan(plan, quantized.qparams, configs, quantized.rows)


def all_but(draft: Draft, quantized: QuantizedPlan, step: Step) -> QuantizedPlan:
    """Returns the quantized plan with one step in float."""
    plan = quantized.plan.replace({step.output: [step]})
    configs = {k: v for k, v in quantized.configs.items() if k != step.output}
    return QuantizedPlan(plan, quantized.qparams, configs, quantized.rows)
