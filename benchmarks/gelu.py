"""What GELU costs in integers: an exact table against what integer engines have operators for.

``python benchmarks/gelu.py --data DATA`` prints a table. Each graph is calibrated anew, written as
an ``int8-full`` file and run by LiteRT.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from cct_export import api
from cct_export.errors import CCTExportError
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.workspace import Workspace
from cct_export.formats import tflite
from cct_export.graph import steps
from cct_export.graph.quantized import QuantizedPlan
from cct_export.graph.steps import Step
from cct_export.quantize.schemes import scheme_of
from cct_export.quantize.statistics import collect
from cct_export.runtimes import litert, session
from cct_export.specs import CALIBRATION_SAMPLES, CalibrationSpec, ExportSpec

SPEC = ExportSpec("tflite", "int8-full", "int8", target="tflm")


def by_sigmoid(step: Step) -> list[Step]:
    """Returns x · sigmoid(1.702 x) (arXiv:1606.08415), each operation in integers."""
    (x,), name = step.inputs, step.output
    return [
        steps.Scale(f"{name}/scaled", (x,), np.full(1, 1.702), np.zeros(1)),
        steps.Activation(f"{name}/gate", (f"{name}/scaled",), "sigmoid"),
        steps.Multiply(name, (x, f"{name}/gate")),
    ]


def by_hard_swish(step: Step) -> list[Step]:
    """Returns the same with hard sigmoid: HARD_SWISH(1.702 x) / 1.702."""
    (x,), name = step.inputs, step.output
    return [
        steps.Scale(f"{name}/scaled", (x,), np.full(1, 1.702), np.zeros(1)),
        steps.Activation(f"{name}/swish", (f"{name}/scaled",), "hard-silu"),
        steps.Scale(name, (f"{name}/swish",), np.full(1, 1 / 1.702), np.zeros(1)),
    ]


FORMS: dict[str, Callable[[Step], list[Step]]] = {
    "exact, a table": lambda step: [step],
    "x · sigmoid(1.702 x)": by_sigmoid,
    "HARD_SWISH(1.702 x) / 1.702": by_hard_swish,
}


def logits_of(quantized: QuantizedPlan, images: np.ndarray) -> np.ndarray:
    """Returns the logits of a plan's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")
        path.write_bytes(tflite.emit(quantized, SPEC))
        return session.run(litert.open_session(path, trusted=True), images)


def print_rows(model: str, data: str, images: int) -> None:
    """Prints the rows of a model."""
    workspace = Workspace(
        api.load(model),
        data=data,
        calibration_samples=CALIBRATION_SAMPLES,
        parity_samples=images,
    )
    draft = workspace.draft(SPEC, scheme_of(SPEC.scheme, SPEC.format))
    if draft is None:
        raise click.ClickException(f"{model} is not lowered to a plan")
    samples = workspace.calibration_images
    for name, form in FORMS.items():
        gelus = [step for step in draft.plan.steps if isinstance(step, steps.Gelu)]
        plan = draft.plan.replace({step.output: form(step) for step in gelus})
        statistics = collect(plan, samples.images, samples.origin)
        quantized = replace(draft, plan=plan, statistics=statistics).quantized(CalibrationSpec())
        logits = logits_of(quantized, workspace.parity_images.images)
        ratio = logits_sqnr_db(workspace.reference, logits, workspace.loaded.outputs)
        print(f"| {model} | {name} | {ratio:.1f} |", flush=True)


@click.command()
@click.option("--data", required=True, help="Images: cifar10, digits, a folder or an .npz.")
@click.option("--model", "models", multiple=True, default=["cct_2_3x2_32", "cct_keras_io"])
@click.option("--images", type=click.IntRange(1), default=1000, help="Test images to compare on.")
def main(data: str, models: tuple[str, ...], images: int) -> None:
    """Print the SQNR of int8-full files with GELU in several forms."""
    print("| model | GELU | SQNR dB |\n|---|---|---:|")
    try:
        for model in models:
            print_rows(model, data, images)
    except CCTExportError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
