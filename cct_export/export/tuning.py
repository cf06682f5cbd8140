"""Choosing calibration methods and float steps by what they do to the logits."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from cct_export.bounds import falls_short
from cct_export.data.dataset import Images
from cct_export.evaluation import parity
from cct_export.evaluation.latency import time_files
from cct_export.export import running
from cct_export.export.draft import Draft
from cct_export.export.sensitivity import logits_of, step_errors
from cct_export.export.workspace import Workspace
from cct_export.formats import weights_of
from cct_export.graph.quantized import OpQuantConfig, QuantizedPlan
from cct_export.graph.steps import AddConstant, Conv, Dense
from cct_export.quantize.ptq import four_bit_steps
from cct_export.records import MixedPrecision, ParityReport, StepError
from cct_export.runtimes import engine_of
from cct_export.runtimes.session import run
from cct_export.specs import METHODS, SUFFIXES, CalibrationSpec
from cct_export.specs.progress import CountProgress, no_progress

# Images that decide for each tensor; between equals the order of the methods does.
SAMPLES = 16
# Interleaved timings of the file with and the file without float steps.
ROUNDS = 20
# Each file with more steps in float has so many times as many where no bound asks for the fewest.
GROWTH = 2


def best_methods(
    draft: Draft, images: Images, *, progress: CountProgress = no_progress
) -> dict[str, str]:
    """Returns the best calibration method for every tensor with a calibrated range.

    Each tensor is quantized by each method, all others staying in float; the one with the highest
    SQNR of the logits is chosen. What is best alone need not be best together: where one method
    for all tensors does better, that one is chosen for all.

    Args:
        draft: what is quantized.
        images: uint8 ``(N, H, W, C)``; the first ``SAMPLES`` decide for each tensor, all for the
            comparison of methods.
        progress: called with the number of steps that are done, and of all.
    """
    few = images[:SAMPLES]
    reference = logits_of(QuantizedPlan(draft.plan), few)
    plans = {name: draft.quantized(CalibrationSpec(methods=name)) for name in METHODS}
    methods: dict[str, str] = {}
    for done, step in enumerate(draft.plan.steps, start=1):
        progress(done, len(draft.plan.steps))
        name = step.output
        candidates = [plan.qparams.get(name) for plan in plans.values()]
        if len({float(params.scale) for params in candidates if params is not None}) < 2:
            continue
        config = {name: OpQuantConfig(quantized_output=True)}
        sqnrs = [
            draft.sqnr_db(
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
        return draft.sqnr_db(reference, logits_of(plan, images))

    sqnrs = {name: sqnr_db(plan) for name, plan in plans.items()}
    best = max(sqnrs, key=lambda name: sqnrs[name])
    if sqnrs[best] > sqnr_db(draft.quantized(CalibrationSpec(methods=methods))):
        return dict.fromkeys(methods, best)
    return methods


def quantize_within(
    workspace: Workspace,
    draft: Draft,
    calibration: CalibrationSpec,
    min_sqnr_db: float | None,
) -> tuple[QuantizedPlan, CalibrationSpec, MixedPrecision]:
    """Keeps steps in float until the file itself, run by its engine, passes parity and the bound.

    What attention computes with calibrated ranges goes first, all but its scores: it is the
    cheapest. Then the step whose quantization alone costs most.

    Args:
        workspace: the images and reference logits that the bound holds on.
        draft: what is quantized.
        calibration: how; its ``floats`` stay in float in any case.
        min_sqnr_db: lowest SQNR of the logits in dB. None for that of the scheme's policy: then few
            files are tried, each with ``GROWTH`` times as many steps in float.

    Returns:
        The quantized plan, how it was calibrated, and what the bound cost.
    """
    bound_db = min_sqnr_db or 0.0
    growth = GROWTH if min_sqnr_db is None else 1
    quantized = draft.quantized(calibration)
    workspace.progress("looking for steps to keep in float")

    def misses(report: ParityReport) -> bool:
        return not report.passed or falls_short(report.sqnr_db, bound_db)

    suffix = SUFFIXES[draft.spec.format]
    with tempfile.TemporaryDirectory() as folder:
        first, last = (Path(folder, f"{name}{suffix}") for name in ("first", "last"))
        before = after = _parity(workspace, draft, quantized, first)
        floats: tuple[str, ...] = ()
        if misses(before) and draft.scheme.attention == "static":
            calibration = replace(calibration, attention="scores")
            quantized = draft.quantized(calibration)
            after = _parity(workspace, draft, quantized, last)
        ranked = _worst_first(workspace, draft, quantized) if misses(after) else []
        wanted, measured = 1, 0
        for name in ranked:
            # A pool between float steps computes in float already.
            changed = replace(calibration, floats=(*calibration.floats, *floats))
            if _has_integers(draft, name, changed):
                floats = (*floats, name)
            enough = len(floats) >= wanted or name == ranked[-1]
            if not enough or len(floats) == measured:
                continue
            workspace.progress(f"{after.sqnr_db:.1f} dB: keeping {len(floats)} steps in float")
            changed = replace(calibration, floats=(*calibration.floats, *floats))
            quantized = draft.quantized(changed)
            after = _parity(workspace, draft, quantized, last)
            if not misses(after):
                break
            measured, wanted = len(floats), growth * len(floats) + 1
        ratio = 1.0 if after is before else slowdown(first, last)
    calibration = replace(calibration, floats=(*calibration.floats, *floats))
    float_sums = calibration.attention is not None
    cost = MixedPrecision(floats, before.sqnr_db, after.sqnr_db, ratio, bound_db, float_sums)
    return quantized, calibration, cost


def raise_bits(
    workspace: Workspace, draft: Draft, calibration: CalibrationSpec
) -> tuple[QuantizedPlan, CalibrationSpec, MixedPrecision]:
    """Gives dense layers 8-bit weights in place of 4 until the file passes parity.

    The layer with the largest error for each of its weights goes first; one keeps 4 bits.

    Args:
        workspace: the images and reference logits that the policy holds on.
        draft: what is quantized, in a scheme with 4-bit weights.
        calibration: how.

    Returns:
        See ``quantize_within``.
    """
    quantized = draft.quantized(calibration)
    sizes = four_bit_steps(draft.plan, draft.scheme)
    noise = {
        error.step: 10 ** (-(error.alone_db or 0.0) / 10)
        for error in _step_errors(workspace, draft, quantized)
    }
    ranked = sorted(sizes, key=lambda step: noise.get(step, 0.0) / sizes[step], reverse=True)
    suffix = SUFFIXES[draft.spec.format]
    with tempfile.TemporaryDirectory() as folder:
        first, last = (Path(folder, f"{name}{suffix}") for name in ("first", "last"))
        before = after = _parity(workspace, draft, quantized, first)
        raised: tuple[str, ...] = ()
        for name in ranked[:-1]:
            if after.passed:
                break
            raised = (*raised, name)
            workspace.progress(f"{after.sqnr_db:.1f} dB: 8-bit weights in {len(raised)} layers")
            quantized = draft.quantized(replace(calibration, eight_bits=raised))
            after = _parity(workspace, draft, quantized, last)
        ratio = slowdown(first, last) if raised else 1.0
    cost = MixedPrecision(raised, before.sqnr_db, after.sqnr_db, ratio, 0.0)
    return quantized, replace(calibration, eight_bits=raised), cost


def _worst_first(workspace: Workspace, draft: Draft, quantized: QuantizedPlan) -> list[str]:
    errors = _step_errors(workspace, draft, quantized)
    return [error.step for error in sorted(errors, key=lambda error: error.alone_db or 0.0)]


def _step_errors(workspace: Workspace, draft: Draft, quantized: QuantizedPlan) -> list[StepError]:
    return step_errors(
        draft,
        quantized,
        workspace.ranking_images.images,
        sensitivity=True,
        progress=workspace.counted("ranking step"),
    )


def _has_integers(draft: Draft, name: str, calibration: CalibrationSpec) -> bool:
    """Whether a step computes in integers while others are kept in float."""
    step = draft.plan.producer(name)
    weighted = isinstance(step, AddConstant | Conv | Dense)
    return weighted or any(name in steps for steps in draft.integer_steps(calibration).values())


def _parity(
    workspace: Workspace, draft: Draft, quantized: QuantizedPlan, path: Path
) -> ParityReport:
    """Writes a file and compares it with the Keras model."""
    running.write(path, draft.emit(quantized), weights_of(quantized, draft.spec))
    session = engine_of(draft.spec.format).open_session(path, trusted=True)
    try:
        logits = run(session, workspace.parity_images.images)
    finally:
        session.close()
    return parity.compare(
        workspace.reference,
        candidate=logits,
        scheme=draft.scheme.name,
        names=(workspace.loaded.source, draft.spec.format),
        images=workspace.parity_images.origin,
        outputs=workspace.loaded.outputs,
    )


def slowdown(first: Path, last: Path) -> float:
    """Returns the latency of ``last`` over that of ``first``, one thread, interleaved."""
    times = time_files([first, last], rounds=ROUNDS)
    return median(times[1]) / median(times[0])
