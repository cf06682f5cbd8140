"""The two programs, ``cct-export`` and ``cct-bench``."""

import os
import sys
from typing import Any

import click

from cct_export import __version__, streams
from cct_export.commands import artifact, device, model, signals, train
from cct_export.commands import auto as choosing
from cct_export.commands import bench as measure
from cct_export.commands import export as exporting
from cct_export.commands.group import Group
from cct_export.model import start_lean

# Options may be written with _ for -, as many Python users do.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
    "show_default": True,
}


def _program(help: str, *commands: click.Command, example: str, **uses: Any) -> Group:
    by_name = {str(command.name): command for command in commands}
    program = Group(
        context_settings=CONTEXT,
        help=help,
        commands=by_name,
        epilog=f"Example: {example}",
        **uses,
    )
    return click.version_option(__version__)(program)  # type: ignore[return-value]


export = _program(
    "Train a Compact Convolutional Transformer, export it to TFLite, ONNX or ncnn, and verify "
    "numerical parity with the Keras model.",
    choosing.auto,
    artifact.bundle,
    artifact.doctor,
    exporting.export_files,
    model.import_,
    model.inspect,
    exporting.ncnn,
    exporting.onnx,
    artifact.predict,
    model.push,
    exporting.quantize_report,
    exporting.tflite,
    train.train,
    artifact.verify,
    example="cct-export tflite model.keras --quantize int8",
    command_for={
        ".tflite": "inspect",
        ".onnx": "inspect",
        ".param": "verify",
        ".png": "predict",
        ".keras": "tflite",
    },
    model_command="tflite",
)
bench = _program(
    "Measure latency, memory and accuracy of exported files and Keras models.",
    measure.check,
    measure.compare,
    device.device,
    measure.keras,
    measure.ncnn,
    measure.onnx,
    measure.tflite,
    example="cct-bench tflite model.tflite --threads 1,4",
    command_for={
        ".tflite": "tflite",
        ".onnx": "onnx",
        ".param": "ncnn",
        ".json": "compare",
        ".keras": "keras",
    },
    model_command="keras",
)


def _run(program: Group, name: str) -> None:
    _open_missing_streams()
    signals.install()
    # The products of numpy here are small: threads would wait for each other on a busy machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    start_lean()
    program(prog_name=name)


def _open_missing_streams() -> None:
    """Opens nothing in place of the standard streams that were closed (``2>&-``)."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            streams.closed.add(name)
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w"))


def export_main() -> None:
    """Entry point of ``cct-export``."""
    _run(export, "cct-export")


def bench_main() -> None:
    """Entry point of ``cct-bench``."""
    _run(bench, "cct-bench")
