"""The two programs, ``cct-export`` and ``cct-bench``."""

import logging
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from cct_export import __version__
from cct_export.commands import artifact, model, train
from cct_export.commands import bench as measure
from cct_export.commands import export as exporting
from cct_export.commands.options import ExitCode
from cct_export.errors import CCTExportError
from cct_export.text import one_line

MAX_MESSAGE_LENGTH = 600

# Options may be written with _ for -, as many Python users do.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
    "show_default": True,
}


class Program(click.Group):
    """A group of commands whose errors are one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; an error becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(ExitCode.INTERRUPTED)
        # click ends quietly where the reader of the output is gone, as `head` is.
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if logging.getLogger("cct_export").isEnabledFor(logging.DEBUG):
                traceback.print_exc()
            ctx.exit(_report(error))


def _report(error: Exception) -> int:
    """Prints ``error`` as one line and returns its exit code."""
    exit_code = 1
    if isinstance(error, CCTExportError):
        message, exit_code = _shortened(str(error)), error.exit_code
    elif isinstance(error, OSError):
        file = f" {error.filename}" if error.filename else ""
        message = _shortened(f"cannot read or write{file}: {error.strerror or error}")
    else:
        message = f"unexpected {type(error).__name__}: {_shortened(str(error))}"
        message += " (this is a bug: -v shows the traceback)"
    click.echo(f"error: {message}", err=True)
    return exit_code


def _shortened(text: str) -> str:
    """Returns ``text`` on one line of limited length: converters quote whole graphs."""
    line = one_line(text)
    if len(line) <= MAX_MESSAGE_LENGTH:
        return line
    return f"{line[:MAX_MESSAGE_LENGTH]} ... (-v shows all)"


def _program(help: str, *commands: click.Command) -> Program:
    by_name = {str(command.name): command for command in commands}
    program = Program(context_settings=CONTEXT, help=help, commands=by_name)
    return click.version_option(__version__)(program)  # type: ignore[return-value]


export = _program(
    "Train a Compact Convolutional Transformer, export it to TFLite or ONNX, and verify numerical "
    "parity with the Keras model.",
    artifact.bundle,
    artifact.doctor,
    model.import_,
    model.inspect,
    exporting.onnx,
    artifact.predict,
    model.push,
    exporting.quantize_report,
    exporting.tflite,
    train.train,
    artifact.verify,
)
bench = _program(
    "Measure latency, memory and accuracy of exported files and Keras models.",
    measure.check,
    measure.compare,
    measure.device,
    measure.keras,
    measure.onnx,
    measure.tflite,
)


def _run(program: Program, name: str) -> NoReturn:
    # A command that is terminated cleans up as one that is interrupted.
    signal.signal(signal.SIGTERM, _exit)
    # The products of numpy here are small: threads would wait for each other on a busy machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(program(prog_name=name))


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)


def export_main() -> None:
    """Entry point of ``cct-export``."""
    _run(export, "cct-export")


def bench_main() -> None:
    """Entry point of ``cct-bench``."""
    _run(bench, "cct-bench")
