"""What each way to quantize better is worth, one at a time, on real images.

``python benchmarks/ablation.py --data DATA`` prints a table. The figures are those of the integer
arithmetic computed in numpy, which engines follow to a few tenths of a dB.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import click
import numpy as np

from cct_export import api, data
from cct_export.data import sampling
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import Draft, draft
from cct_export.export.sensitivity import logits, only
from cct_export.graph import steps
from cct_export.graph.plan import Plan
from cct_export.graph.quantized import QuantizedPlan, evaluate
from cct_export.model.checkpoint import image_shape
from cct_export.quantize.schemes import SCHEMES
from cct_export.quantize.statistics import collect
from cct_export.specs import METHODS, CalibrationSpec, ExportSpec

NEAREST = CalibrationSpec(rounding="nearest")


@click.command()
@click.option("--data", "source", required=True, help="Images: cifar10, digits, folder or .npz.")
@click.option("--model", default="cct_keras_io", help="A preset, .keras, .weights.h5 or run.")
@click.option("--images", type=click.IntRange(1), default=1000, help="Test images to judge on.")
def main(source: str, model: str, images: int) -> None:
    """Print SQNR and top-1 agreement of int8 and int8-full with each part on and off."""
    loaded = api.load(model)
    shape = image_shape(loaded.model)
    dataset = data.read(source, shape)
    judges = sampling.parity(dataset, shape, images).images
    print("| scheme | what | SQNR dB | top-1 agreement |\n|---|---|---|---|")
    for name in ("int8", "int8-full"):
        spec = ExportSpec("tflite", name)
        started = draft(loaded, spec, SCHEMES[name], dataset, 200)
        assert started is not None, "not a CCT"
        wanted = logits(QuantizedPlan(started.plan), judges)
        crops = draft(loaded, spec, SCHEMES[name], None, 200)
        without = draft(replace(loaded, calibration=None), spec, SCHEMES[name], None, 200)
        calibration = sampling.calibration(dataset, shape, 200).images
        for what, make in _ways(started, crops, without, calibration):
            found = logits(make(), judges)
            agreement = (wanted.argmax(1) == found.argmax(1)).mean()
            print(f"| {name} | {what} | {logits_sqnr_db(wanted, found):.1f} | {agreement:.3f} |")


Way = tuple[str, Callable[[], QuantizedPlan]]


def _ways(
    started: Draft, recorded: Draft | None, crops: Draft | None, images: np.ndarray
) -> Iterator[Way]:
    usual = CalibrationSpec()
    yield "as it is", lambda: started.quantized(usual)
    yield "nearest rounding", lambda: started.quantized(NEAREST)
    for method in METHODS:
        yield (
            f"ranges: {method}",
            lambda method=method: started.quantized(CalibrationSpec(methods=method)),
        )
    assert recorded is not None and crops is not None, "not a CCT"
    yield "calibrated on the model's record", lambda: recorded.quantized(usual)
    yield "calibrated on photo crops", lambda: crops.quantized(usual)
    equal = replace(started, plan=equalized(started.plan))
    equal = replace(equal, statistics=collect(equal.plan, images, "calibration images"))
    yield "channels equalized", lambda: equal.quantized(usual)
    yield "biases corrected", lambda: corrected(started, started.quantized(usual), images)
    yield (
        "biases corrected, nearest",
        lambda: corrected(started, started.quantized(NEAREST), images),
    )
    yield from _single_parts(started)


def _single_parts(started: Draft) -> Iterator[Way]:
    """Gives each kind of steps alone."""
    quantized = started.quantized(CalibrationSpec())
    kinds = {plan.kind for plan in started.plan.steps if plan.output in quantized.configs}
    for kind in sorted(kinds):
        chosen = [s for s in started.plan.steps if s.kind == kind]
        yield f"{kind} alone", lambda chosen=chosen: _of(started, quantized, chosen)


def _of(started: Draft, quantized: QuantizedPlan, chosen: list[steps.Step]) -> QuantizedPlan:
    found = QuantizedPlan(started.plan, quantized.qparams, {}, quantized.per_token)
    for step in chosen:
        if step.output in quantized.configs:
            one = only(replace(started, plan=found.plan), quantized, step)
            configs = {**found.configs, **one.configs}
            found = replace(one, configs=configs)
    return found


def equalized(plan: Plan) -> Plan:
    """Returns the plan with the channels between two convolutions brought to one range.

    Scales pass exactly through ReLU and max pool (cross-layer equalization, arXiv:1906.04721).
    """
    convolutions = [step for step in plan.steps if isinstance(step, steps.Conv)]
    for first, second in pairwise(convolutions):
        out = np.abs(first.kernel).max((0, 1, 2))
        into = np.abs(second.kernel).max((0, 1, 3))
        scale = np.sqrt(out / into)
        bias = None if first.bias is None else first.bias / scale
        plan = plan.replace(
            {
                first.output: [replace(first, kernel=first.kernel / scale, bias=bias)],
                second.output: [replace(second, kernel=second.kernel * scale[:, None])],
            }
        )
    return plan


def corrected(started: Draft, quantized: QuantizedPlan, images: np.ndarray) -> QuantizedPlan:
    """Returns the plan with the mean error of every layer taken off its bias, one by one."""
    for step in started.plan.steps:
        treated = quantized.plan.producer(step.output)
        if not isinstance(treated, steps.Dense) or treated.bias is None:
            continue
        means: list[np.ndarray] = []

        def note(name: str, x: np.ndarray, means: list = means, wanted: str = step.output) -> None:
            if name == wanted:
                means.append(x.reshape(-1, x.shape[-1]).mean(0))

        evaluate(started.plan, images[:100], note)
        evaluate(quantized, images[:100], note)
        better = replace(treated, bias=treated.bias + means[0] - means[1])
        quantized = replace(quantized, plan=quantized.plan.replace({step.output: [better]}))
    return quantized


if __name__ == "__main__":
    main()
