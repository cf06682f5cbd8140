"""The two programs, ``cct-export`` and ``cct-bench``."""

import logging
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from cct_export import __version__
from cct_export.commands.bench import check, compare, device, keras
from cct_export.commands.bench import onnx as bench_onnx
from cct_export.commands.bench import tflite as bench_tflite
from cct_export.commands.export import (
    bundle,
    doctor,
    import_,
    inspect,
    onnx,
    predict,
    push,
    quantize_report,
    tflite,
    train,
    verify,
)
from cct_export.commands.plain import plain
from cct_export.errors import CCTExportError

INTERRUPTED = 130
LONGEST_MESSAGE = 600

# Options may be written with _ for -, as many Python users do.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
    "show_default": True,
}


class Program(click.Group):
    """A group that turns any error of its commands into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; any error becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            if logging.getLogger("cct_export").isEnabledFor(logging.DEBUG):
                traceback.print_exc()
            ctx.exit(_say(error))


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _say(error: Exception) -> int:
    """Prints ``error`` as one line and returns the exit code it stands for."""
    if isinstance(error, CCTExportError):
        click.echo(f"error: {_short(str(error))}", err=True)
        return error.exit_code
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"error: cannot read or write{where}: {error.strerror or error}", err=True)
        return 1
    what = f"{type(error).__name__}: {_short(str(error))}"
    click.echo(f"error: {what} (not foreseen: -v shows where it happened)", err=True)
    return 1


def _short(text: str) -> str:
    """Returns ``text`` in one line that a terminal can hold: converters quote whole graphs."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]} ... (-v shows all)"


def _program(about: str, commands: dict[str, click.Command]) -> Program:
    program = Program(context_settings=CONTEXT, help=about, commands=commands)
    return click.version_option(__version__)(program)  # type: ignore[return-value]


export = _program(
    "Train a Compact Convolutional Transformer, export it to TFLite or ONNX, and prove that the "
    "file still is the same model.",
    {
        "bundle": bundle.command,
        "doctor": doctor.command,
        "import": import_.command,
        "inspect": inspect.command,
        "onnx": onnx.command,
        "predict": predict.command,
        "push": push.command,
        "quantize-report": quantize_report.command,
        "tflite": tflite.command,
        "train": train.command,
        "verify": verify.command,
    },
)
bench = _program(
    "Measure latency, memory and accuracy of an exported file or of the Keras model.",
    {
        "check": check.command,
        "compare": compare.command,
        "device": device.command,
        "keras": keras.command,
        "onnx": bench_onnx.command,
        "tflite": bench_tflite.command,
    },
)


def _run(program: Program, name: str) -> NoReturn:
    # Ended from outside, a command clears up like one that was interrupted.
    signal.signal(signal.SIGTERM, _end)
    # numpy's products here are small: its threads wait for each other, on a busy machine for long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(program(prog_name=name))


def export_main() -> None:
    """Entry point of ``cct-export``."""
    _run(export, "cct-export")


def bench_main() -> None:
    """Entry point of ``cct-bench``."""
    _run(bench, "cct-bench")
