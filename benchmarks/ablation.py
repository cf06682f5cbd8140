"""What each part of post-training quantization is worth, on real images.

``python benchmarks/ablation.py --data DATA`` prints a table. The figures are those of the integer
arithmetic computed in numpy; the engines differ from it by a few tenths of a dB.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import click
import numpy as np

from cct_export import api
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import Draft
from cct_export.export.sensitivity import logits_of, only
from cct_export.export.workspace import Workspace
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan, evaluate
from cct_export.quantize.schemes import scheme_of
from cct_export.quantize.statistics import collect as collect_statistics
from cct_export.specs import CALIBRATION_SAMPLES, METHODS, CalibrationSpec, ExportSpec

DEFAULT = CalibrationSpec()
NEAREST = CalibrationSpec(rounding="nearest")
BIAS_CORRECTION_IMAGES = 100
Variant = tuple[str, Callable[[], QuantizedPlan]]


@click.command()
@click.option("--data", required=True, help="Images: cifar10, digits, a folder or an .npz.")
@click.option("--model", default="cct_keras_io", help="A preset, .keras, .weights.h5 or run.")
@click.option("--images", type=click.IntRange(1), default=1000, help="Test images to compare on.")
def main(data: str, model: str, images: int) -> None:
    """Print SQNR and top-1 agreement of int8 and int8-full, with each part on and off."""
    loaded = api.load(model)
    workspace = partial(Workspace, calibration_samples=CALIBRATION_SAMPLES, parity_samples=images)
    with_data = workspace(loaded, data=data)
    with_record = workspace(loaded, data=None)
    with_crops = workspace(replace(loaded, calibration_file=None), data=None)
    test_images = with_data.parity_images.images
    print("| scheme | variant | SQNR dB | top-1 agreement |\n|---|---|---:|---:|")
    for name in ("int8", "int8-full"):
        spec = ExportSpec("tflite", name)
        draft, by_record, by_crops = (
            w.draft(spec, scheme_of(name, "tflite")) for w in (with_data, with_record, with_crops)
        )
        if draft is None or by_record is None or by_crops is None:
            raise click.ClickException(f"{model} is not a CCT")
        reference = logits_of(QuantizedPlan(draft.plan), test_images)
        variants = [
            *_variants(draft, with_data.calibration_images.images),
            ("calibrated on the model's record", partial(by_record.quantized, DEFAULT)),
            ("calibrated on photo crops", partial(by_crops.quantized, DEFAULT)),
            *_single_kinds(draft),
        ]
        for variant, quantize in variants:
            logits = logits_of(quantize(), test_images)
            agreement = (reference.argmax(1) == logits.argmax(1)).mean()
            sqnr_db = logits_sqnr_db(reference, logits)
            print(f"| {name} | {variant} | {sqnr_db:.1f} | {agreement:.3f} |")


def _variants(draft: Draft, images: np.ndarray) -> Iterator[Variant]:
    yield "default", partial(draft.quantized, DEFAULT)
    yield "nearest rounding", partial(draft.quantized, NEAREST)
    for method in METHODS:
        yield f"ranges: {method}", partial(draft.quantized, CalibrationSpec(methods=method))
    plan = equalized(draft.plan)
    equal = replace(
        draft, plan=plan, statistics=collect_statistics(plan, images, "calibration images")
    )
    yield "channels equalized", partial(equal.quantized, DEFAULT)
    for calibration, name in (
        (DEFAULT, "biases corrected"),
        (NEAREST, "biases corrected, nearest"),
    ):
        yield name, partial(_corrected, draft, calibration, images)


def _corrected(draft: Draft, calibration: CalibrationSpec, images: np.ndarray) -> QuantizedPlan:
    return corrected(draft, draft.quantized(calibration), images[:BIAS_CORRECTION_IMAGES])


def _single_kinds(draft: Draft) -> Iterator[Variant]:
    """Quantizes each kind of steps alone."""
    quantized = draft.quantized(DEFAULT)
    kinds = {step.kind for step in draft.plan.steps if step.output in quantized.configs}
    for kind in sorted(kinds):
        yield f"{kind} alone", partial(_only_kind, draft, quantized, kind)


def _only_kind(draft: Draft, quantized: QuantizedPlan, kind: str) -> QuantizedPlan:
    plan = QuantizedPlan(draft.plan, quantized.qparams, {}, quantized.per_token)
    for step in draft.plan.steps:
        if step.kind == kind and step.output in quantized.configs:
            single = only(replace(draft, plan=plan.plan), quantized, step)
            plan = replace(single, configs={**plan.configs, **single.configs})
    return plan


def equalized(plan: Plan) -> Plan:
    """Returns the plan with the channels between two convolutions brought to one range.

    Scales pass exactly through ReLU and max pool (cross-layer equalization, arXiv:1906.04721).
    """
    convolutions = [step for step in plan.steps if isinstance(step, steps.Conv)]
    for first, second in pairwise(convolutions):
        output_range = np.abs(first.kernel).max((0, 1, 2))
        input_range = np.abs(second.kernel).max((0, 1, 3))
        scale = np.sqrt(output_range / input_range)
        bias = None if first.bias is None else first.bias / scale
        plan = plan.replace(
            {
                first.output: [replace(first, kernel=first.kernel / scale, bias=bias)],
                second.output: [replace(second, kernel=second.kernel * scale[:, None])],
            }
        )
    return plan


def corrected(draft: Draft, quantized: QuantizedPlan, images: np.ndarray) -> QuantizedPlan:
    """Returns the plan with the mean error of each dense layer subtracted from its bias."""
    for step in draft.plan.steps:
        dense = quantized.plan.producer(step.output)
        if not isinstance(dense, steps.Dense) or dense.bias is None:
            continue
        # What integers cut off on purpose, as before a GELU, is no error of the weights.
        params = quantized.qparams.get(step.output)
        limits = (-np.inf, np.inf) if params is None else (params.min_value, params.max_value)
        exact = _channel_means(draft.plan, images, step, limits)
        error = _channel_means(quantized, images, step, limits) - exact
        better = replace(dense, bias=dense.bias - error)
        quantized = replace(quantized, plan=quantized.plan.replace({step.output: [better]}))
    return quantized


def _channel_means(
    plan: Plan | QuantizedPlan,
    images: np.ndarray,
    step: steps.Step,
    limits: tuple[float, float],
) -> np.ndarray:
    means: dict[str, np.ndarray] = {}

    def collect(name: str, x: np.ndarray) -> None:
        if name == step.output:
            means[name] = np.clip(x, *limits).reshape(-1, x.shape[-1]).mean(0)

    evaluate(plan, images, collect)
    return means[step.output]


if __name__ == "__main__":
    main()
