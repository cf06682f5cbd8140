"""What commands share: options, the ``--json`` record, exit codes, and quiet libraries."""

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import click

from cct_export.commands.outputs import check_outputs, say_written
from cct_export.commands.types import Number, OneOf, PathOr
from cct_export.errors import InvalidRequest
from cct_export.files import write_text
from cct_export.quantize.schemes import SCHEMES
from cct_export.specs import AUTO, DATA_SETS, PARITY_SAMPLES, SAMPLES
from cct_export.streams import native_stderr_hidden, redirected

DATASETS = f"{', '.join(DATA_SETS)}, a folder, TFRecord shards or an .npz file"
DATA = PathOr(DATA_SETS, "DATA")
FILE = PathOr((), "FILE")
ARTIFACT = PathOr((), "ARTIFACT")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class ExitCode(IntEnum):
    """How a command ends that has a result; errors have their own, see ``cct_export.errors``."""

    PASSED = 0
    PARITY_FAILED = 3
    ACCURACY_LOST = 4
    REGRESSION = 5
    INCONCLUSIVE = 7
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


@dataclass(frozen=True)
class Outcome:
    """The result of a command.

    Attributes:
        record: what ``--json`` writes; values are records and JSON types.
        exit_code: what the process ends with.
    """

    record: Mapping[str, object]
    exit_code: int = ExitCode.PASSED


def combined(*decorators: Decorator) -> Decorator:
    """Returns a decorator that adds options in this order."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return add


# The API checks the name: it knows which format has which scheme.
scheme = click.option(
    "--quantize",
    "scheme",
    type=OneOf((*SCHEMES, AUTO), "SCHEME"),
    default="none",
    help="Quantization scheme: none, fp16, int8-dynamic, int8, int8-full, int16x8, int4-weight, or "
    "auto for the fastest on this machine that meets the constraints.",
)


parity_samples = click.option(
    "--parity-samples",
    "--samples",
    "parity_samples",
    type=Number(SAMPLES),
    default=PARITY_SAMPLES,
    help="Test images to verify parity on.",
)


def common(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Adds ``--json``, ``-q`` and ``-v``, and makes a command of a function with an outcome."""

    @click.option(
        "--json",
        "json_path",
        type=PathOr((), "FILE|-"),
        help="Write the results as JSON; - is standard output.",
    )
    @click.option(
        "-q", "--quiet", is_flag=True, help="No progress and no notes: tables and errors only."
    )
    @click.option("-v", "--verbose", is_flag=True, help="Print more, and tracebacks.")
    @functools.wraps(function)
    def command(json_path: str | None, quiet: bool, verbose: bool, **arguments: Any) -> None:
        check_outputs(click.get_current_context().params)
        with contextlib.ExitStack() as streams:
            if not verbose:
                streams.enter_context(native_stderr_hidden())
            if json_path == "-":
                streams.enter_context(_stdout_reserved())
            _configure_logging(quiet, verbose)
            outcome = function(**arguments)
            if json_path not in (None, "-"):
                _write_json(outcome.record, json_path)
        if json_path == "-":
            _write_json(outcome.record, json_path)
        if outcome.exit_code:
            click.get_current_context().exit(outcome.exit_code)

    return command


def _write_json(record: Mapping[str, object], path: str) -> None:
    from cct_export.records.encoding import to_json

    # ASCII: no string in it controls a terminal.
    text = json.dumps(to_json(record), indent=2, allow_nan=False) + "\n"
    if path == "-":
        click.echo(text, nl=False)
    else:
        write_text(Path(path), text)
        say_written(Path(path))


def check_plot(path: Path) -> None:
    """Refuses a plot of another format than PNG."""
    if path.suffix != ".png":
        raise InvalidRequest(f"a plot is a .png file, not {path}: choose a name that ends in .png")


def use_tensorflow() -> None:
    """Makes Keras start on TensorFlow: the converters need it, whatever KERAS_BACKEND says."""
    os.environ["KERAS_BACKEND"] = "tensorflow"


def _configure_logging(quiet: bool, verbose: bool) -> None:
    from cct_export.report.terminal import MessageHandler

    logger = logging.getLogger("cct_export")
    logger.handlers = [MessageHandler()]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    if not verbose:  # it warns, for example, of a home that it cannot write its settings to
        logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextlib.contextmanager
def _stdout_reserved() -> Iterator[None]:
    """Sends what libraries print to standard error, so that standard output is JSON alone."""
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr), redirected(1, 2):
        yield
