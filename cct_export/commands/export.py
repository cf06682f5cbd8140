"""``cct-export tflite``, ``onnx``, ``ncnn``, ``export`` and ``quantize-report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cct_export.bounds import Range
from cct_export.commands import options
from cct_export.commands.options import DATASETS, ExitCode, Outcome
from cct_export.commands.outputs import OutputFile, TableFiles, table_files
from cct_export.commands.types import Model, NameList, Number, OneOf, Output, PathOr
from cct_export.quantize.schemes import BY_FORMAT, SCHEMES
from cct_export.specs import (
    BEST,
    CALIBRATION_SAMPLES,
    DEFAULT_MODEL,
    FOLDS,
    INPUT_TYPES,
    LAYOUTS,
    METHODS,
    NPU_ACTIVATIONS,
    POINTS,
    PRIORITIES,
    ROUNDINGS,
    SAMPLES,
    SQNR_DB,
    TARGETS,
    CalibrationSpec,
    ExportSpec,
)

if TYPE_CHECKING:
    from cct_export.records import Exported

model = click.argument("model", type=Model(), default=DEFAULT_MODEL)
rounding = click.option(
    "--rounding",
    type=OneOf(ROUNDINGS),
    default=CalibrationSpec.rounding,
    help="Rounding of weights: gptq, which compensates the error of each weight in those that "
    "follow, on the calibration images (arXiv:2210.17323), or to the nearest integer.",
)
calibrate = click.option(
    "--calibrate",
    type=OneOf(METHODS),
    default=CalibrationSpec.default_method,
    help="Calibration method, which chooses the range of a tensor.",
)
min_sqnr = click.option(
    "--min-sqnr", type=Number(SQNR_DB), metavar="DB", help="Minimum SQNR of the logits."
)
max_drop = click.option(
    "--max-drop",
    type=Number(POINTS),
    metavar="POINTS",
    help="Maximum loss of top-1 accuracy that auto may accept; needs labelled --data.",
)
calibration = options.combined(
    click.option(
        "--calibrate",
        type=OneOf([*METHODS, BEST]),
        default=CalibrationSpec.default_method,
        help="Calibration method, which chooses the range of a tensor; best tries all for each "
        "tensor and takes the one with the smallest error of the logits.",
    ),
    rounding,
    click.option(
        "--min-sqnr",
        type=Number(SQNR_DB),
        metavar="DB",
        help="Minimum SQNR of the logits: the steps with the largest error stay in float until it "
        "holds.",
    ),
)
quantization = options.combined(calibration, max_drop)
images = options.combined(
    click.option(
        "--data",
        type=options.DATA,
        help="Images for calibration (training split) and parity (test split): "
        f"{DATASETS}. Without it those of the run directory, else the model's calibration record "
        "and photo crops.",
    ),
    click.option(
        "--calibration-samples",
        "--num-calibration-samples",
        "calibration_samples",
        type=Number(SAMPLES),
        default=CALIBRATION_SAMPLES,
        help="Training images to calibrate with.",
    ),
    options.parity_samples,
)
output = options.combined(
    click.option(
        "--no-fold",
        type=OneOf(FOLDS, "NAME"),
        multiple=True,
        help="Skip a fold of the graph, for debugging; may be repeated. The folds: "
        f"{', '.join(FOLDS)}.",
    ),
    click.option(
        "-o",
        "--output",
        type=PathOr((), "FILE|FOLDER/"),
        help="File to write, or a folder for it; by default named after model and scheme.",
    ),
)


@click.command()
@model
@options.scheme
@click.option(
    "--io",
    type=OneOf(INPUT_TYPES["tflite"]),
    help="Type of the image input, by default float32, int8 for int8-full. Logits are float32; of "
    "int8-full they have the type of the image.",
)
@quantization
@click.option(
    "--target",
    type=OneOf(TARGETS["tflite"]),
    help="Engine to make the file for, by default litert; tflm is TFLite Micro, which takes "
    "int8-full and fewer operators.",
)
@click.option(
    "--optimize",
    type=OneOf(PRIORITIES),
    default=ExportSpec.optimize,
    help="What counts more for float32: size, or speed on one thread of a CPU, for which large "
    "convolutions get more weights and fewer multiplications.",
)
@images
@options.softmax
@options.loading
@output
@options.common
def tflite(model: str, **arguments: Any) -> Outcome:
    """Export MODEL to TFLite and verify numerical parity with Keras.

    MODEL is a .keras file, a run directory, a preset, or anything that `cct-export import` takes;
    by default the shipped CIFAR-10 model. Ends with 3 if parity fails.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.report.terminal import status

    with status() as progress:
        exported = api.export_tflite(model, progress=progress, **arguments)
    return _exported(exported)


@click.command()
@model
@options.scheme
@click.option(
    "--io",
    type=OneOf(INPUT_TYPES["onnx"]),
    default="float32",
    help="Type of the image input; logits are float32.",
)
@click.option(
    "--opset",
    type=Number(Range(whole=True)),
    help="ONNX operator set: 13 to 23, by default 20; int16x8 and int4-weight need 21.",
)
@click.option(
    "--dynamic-axes/--no-dynamic-axes",
    "dynamic_batch",
    default=None,
    help="Take any number of images, or exactly one, as int8-full and int16x8 do; by default any.",
)
@click.option(
    "--layout",
    type=OneOf(LAYOUTS),
    default=ExportSpec.layout,
    help="Order of the axes of the image input: channels last, or first.",
)
@quantization
@click.option(
    "--target",
    type=OneOf(TARGETS["onnx"]),
    help="Processor to quantize int8 for, by default x86: activations are unsigned for x86, signed "
    "for arm64.",
)
@click.option(
    "--activations",
    type=OneOf(NPU_ACTIVATIONS.values()),
    help="Type of the activations of int8-full, by default uint8; uint16 makes it int16x8.",
)
@click.option(
    "--pure-onnx",
    is_flag=True,
    help="Standard operators only, for readers other than ONNX Runtime; int8 else has some of its "
    "own (com.microsoft), which are faster.",
)
@images
@options.softmax
@options.loading
@output
@options.common
def onnx(model: str, **arguments: Any) -> Outcome:
    """Export MODEL to ONNX and verify numerical parity with Keras.

    MODEL is a .keras file, a run directory, a preset, or anything that `cct-export import` takes;
    by default the shipped CIFAR-10 model. Ends with 3 if parity fails.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.report.terminal import status

    with status() as progress:
        exported = api.export_onnx(model, progress=progress, **arguments)
    return _exported(exported)


@click.command()
@model
@click.option(
    "--quantize",
    "scheme",
    type=OneOf(BY_FORMAT["ncnn"], "SCHEME"),
    default=ExportSpec.scheme,
    help="Quantization scheme: none, fp16 for weights of half the size, or int8.",
)
@calibration
@images
@options.softmax
@options.loading
@output
@options.common
def ncnn(model: str, **arguments: Any) -> Outcome:
    """Export MODEL to ncnn and verify numerical parity with Keras.

    Writes the layers (.ncnn.param) and the weights (.ncnn.bin). MODEL is a .keras file, a run
    directory, a preset, or anything that `cct-export import` takes; by default the shipped CIFAR-10
    model. Ends with 3 if parity fails.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.report.terminal import status

    with status() as progress:
        exported = api.export_ncnn(model, progress=progress, **arguments)
    return _exported(exported)


def _exported(exported: "Exported") -> Outcome:
    from cct_export.report.export import show_export

    passed = exported.parity.passed
    return Outcome(
        exported.to_dict(),
        ExitCode.PASSED if passed else ExitCode.PARITY_FAILED,
        show=lambda: show_export(exported),
    )


@click.command("export")
@model
@click.option(
    "--format",
    "formats",
    type=NameList(),
    metavar="FORMAT[,...]",
    default="tflite,onnx",
    help="Formats of the files, separated by commas: tflite, onnx, ncnn.",
)
@click.option(
    "--quantize",
    "schemes",
    type=NameList(),
    metavar="SCHEME[,...]",
    default="none,int8",
    help="Quantization schemes, separated by commas; see cct-export tflite.",
)
@quantization
@click.option(
    "--target",
    type=OneOf([name for names in TARGETS.values() for name in names]),
    help="What the files are made for; see cct-export tflite and cct-export onnx.",
)
@images
@options.softmax
@options.loading
@click.option(
    "-o",
    "--output",
    type=PathOr((), "FOLDER"),
    default=".",
    help="Folder for the files, made if missing.",
)
@table_files
@options.common
def export_files(model: str, files: TableFiles, **arguments: Any) -> Outcome:
    """Export MODEL to several formats and schemes, and verify numerical parity of each file.

    Writes a file for every format and scheme, named after both. MODEL is loaded, and its logits
    are computed, once. Ends with 3 if parity of any file fails.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.report.export import ExportRow, export_columns, export_rows, show_exports
    from cct_export.report.terminal import status

    with status() as progress:
        exports = api.export_files(model, progress=progress, **arguments)
    passed = all(exported.parity.passed for exported in exports)
    return Outcome(
        {"files": [exported.to_dict() for exported in exports]},
        ExitCode.PASSED if passed else ExitCode.PARITY_FAILED,
        files=files.of_table(export_columns(), export_rows(exports), ExportRow),
        show=lambda: show_exports(exports),
    )


@click.command("quantize-report")
@model
@click.option("--format", type=OneOf(INPUT_TYPES), default="tflite", help="Format of the file.")
@click.option(
    "--quantize",
    "scheme",
    type=OneOf(SCHEMES, "SCHEME"),
    default="int8",
    help="Quantization scheme, see cct-export tflite.",
)
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Also measure the logits with each step alone quantized, and with all but each.",
)
@click.option(
    "--plot", metavar="FILE", type=Output(file=True), help="Plot the steps as a .png file."
)
@calibrate
@rounding
@click.option("--samples", type=Number(SAMPLES), default=100, help="Test images to compare on.")
@click.option("--data", type=options.DATA, help=f"Images: {DATASETS}.")
@options.loading
@table_files
@options.common
def quantize_report(model: str, plot: Path | None, files: TableFiles, **arguments: Any) -> Outcome:
    """Report where quantizing MODEL loses accuracy, step by step, the largest error first.

    Compares every tensor of the quantized graph with the float graph: SQNR, range, and the
    proportion of values that are clipped. Writes no model file.
    """
    options.use_tensorflow()
    from cct_export import api
    from cct_export.records import StepError
    from cct_export.report.export import (
        plot_quantization,
        show_quantization,
        step_columns,
        worst_first,
    )
    from cct_export.report.terminal import status

    if plot is not None:
        options.check_plot(plot)
    with status() as progress:
        report = api.quantize_report(model, progress=progress, **arguments)
    outputs = files.of_table(step_columns(report), worst_first(report), StepError)
    if plot is not None:
        outputs.append(OutputFile(plot, lambda path: plot_quantization(report, path)))
    return Outcome(report.to_dict(), files=outputs, show=lambda: show_quantization(report))
