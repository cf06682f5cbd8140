"""Where a quantized plan loses accuracy, step by step."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from cct_export.data.dataset import Images
from cct_export.errors import InvalidRequest
from cct_export.export.draft import Draft
from cct_export.export.workspace import Workspace
from cct_export.graph.quantized import QuantizedPlan, evaluate
from cct_export.graph.steps import Array, Step
from cct_export.quantize.ranges import clipped_share
from cct_export.quantize.schemes import scheme_of
from cct_export.quantize.statistics import batch_size
from cct_export.records import QuantizationReport, StepError
from cct_export.runtimes import onnxruntime_profile
from cct_export.specs import CalibrationSpec, ExportSpec
from cct_export.specs.progress import CountProgress, no_progress


def report(
    workspace: Workspace,
    spec: ExportSpec,
    calibration: CalibrationSpec,
    *,
    sensitivity: bool = False,
) -> QuantizationReport:
    """Quantizes a model and reports the error of every step, on the parity images.

    Args:
        workspace: the model and its images.
        spec: format and scheme.
        calibration: how ranges and rounding are chosen.
        sensitivity: also quantize each step alone, and all but each.

    Raises:
        InvalidRequest: the steps of the model are not known.
        CCTExportError: any reason that an export has.
    """
    if workspace.lowering.plan is None:
        source, reason = workspace.loaded.source, workspace.lowering.reason
        raise InvalidRequest(f"the steps of {source} are not known ({reason}): name another model")
    draft = workspace.draft(spec, scheme_of(spec.scheme, spec.format))
    quantized = draft.quantized(calibration, workspace.counted("quantizing step"))
    images = workspace.parity_images
    workspace.progress("running the quantized graph")
    progress = workspace.counted("comparing step")
    reference = logits_of(QuantizedPlan(draft.plan), images.images)
    return QuantizationReport(
        model=workspace.loaded.source,
        format=spec.format,
        scheme=spec.scheme,
        calibration=draft.origin,
        images=images.origin,
        sqnr_db=draft.sqnr_db(reference, logits_of(quantized, images.images)),
        steps=tuple(
            step_errors(draft, quantized, images.images, sensitivity=sensitivity, progress=progress)
        ),
        kernels=_kernels(draft, quantized),
    )


def _kernels(draft: Draft, quantized: QuantizedPlan) -> dict[str, int]:
    """Returns the operators that ONNX Runtime runs for one image; none for TFLite."""
    if draft.spec.format != "onnx":
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quantized.onnx")
        path.write_bytes(draft.emit(quantized))
        return onnxruntime_profile.kernels(path)


def logits_of(plan: QuantizedPlan, images: Images) -> Array:
    """Returns the logits of a plan, computed with numpy: float64 ``(N, values)``."""
    size = batch_size(plan.plan)
    parts = [evaluate(plan, images[i : i + size]) for i in range(0, len(images), size)]
    return np.concatenate(parts).reshape(len(images), -1)


def step_errors(
    draft: Draft,
    quantized: QuantizedPlan,
    images: Images,
    *,
    sensitivity: bool = False,
    progress: CountProgress = no_progress,
) -> list[StepError]:
    """Compares every tensor of a quantized plan with that of the float plan.

    Args:
        draft: the float plan.
        quantized: the same plan, quantized.
        images: uint8 ``(N, H, W, C)``.
        sensitivity: also measure the logits with each step quantized alone, and left out.
        progress: called with the number of finished steps, and of all.

    Returns:
        A record for every step with quantized inputs, output or weights, in order.
    """
    powers = _signal_and_noise(draft, quantized, images)
    steps = [step for step in draft.plan.steps if quantized.config(step).has_integers]
    reference = logits_of(QuantizedPlan(draft.plan), images) if sensitivity else None
    errors = []
    for index, step in enumerate(steps):
        error = _step_error(draft, quantized, step, powers[step.output])
        if reference is not None:
            alone = logits_of(only(draft, quantized, step), images)
            without = logits_of(all_but(draft, quantized, step), images)
            error = replace(
                error,
                alone_db=draft.sqnr_db(reference, alone),
                without_db=draft.sqnr_db(reference, without),
            )
        errors.append(error)
        progress(index + 1, len(steps))
    return errors


def _signal_and_noise(
    draft: Draft, quantized: QuantizedPlan, images: Images
) -> dict[str, tuple[float, float]]:
    """Returns the power of every float tensor, and that of its quantization error."""
    powers: dict[str, tuple[float, float]] = {}
    size = batch_size(draft.plan)
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        floats: dict[str, Array] = {}
        evaluate(draft.plan, chunk, floats.__setitem__)

        def compare(name: str, x: Array, floats: dict[str, Array] = floats) -> None:
            signal, noise = powers.get(name, (0.0, 0.0))
            difference = floats[name] - x
            powers[name] = (
                signal + float(np.sum(floats[name] ** 2)),
                noise + float(np.sum(difference**2)),
            )

        evaluate(quantized, chunk, compare)
    return powers


def _step_error(
    draft: Draft, quantized: QuantizedPlan, step: Step, powers: tuple[float, float]
) -> StepError:
    signal, noise = powers
    config = quantized.config(step)
    assert draft.statistics is not None, "a quantized plan was calibrated"
    histogram = draft.statistics.histograms[step.output]
    params = quantized.qparams[step.output] if config.quantized_output else None
    return StepError(
        step=step.output,
        kind=step.kind,
        inputs=config.inputs,
        weight_bits=None if config.weights is None else config.weights.bits,
        sqnr_db=10 * math.log10(signal / noise) if signal and noise else math.inf,
        low=histogram.low,
        high=histogram.high,
        grid_low=None if params is None else float(params.min_value),
        grid_high=None if params is None else float(params.max_value),
        clipped=None if params is None else clipped_share(histogram, params),
    )


def only(draft: Draft, quantized: QuantizedPlan, step: Step) -> QuantizedPlan:
    """Returns the float plan with one step quantized."""
    quantized_step = quantized.plan.producer(step.output)
    assert quantized_step is not None, "both plans have the same steps"
    plan = draft.plan.replace({step.output: [quantized_step]})
    configs = {step.output: quantized.configs[step.output]}
    return replace(quantized, plan=plan, configs=configs)


def all_but(draft: Draft, quantized: QuantizedPlan, step: Step) -> QuantizedPlan:
    """Returns the quantized plan with one step in float."""
    plan = quantized.plan.replace({step.output: [step]})
    configs = {k: v for k, v in quantized.configs.items() if k != step.output}
    return replace(quantized, plan=plan, configs=configs)
