"""What commands share: options, the ``--json`` record, exit codes, and quiet libraries."""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import click

from cct_export.commands import messages
from cct_export.commands.labels import read_labels
from cct_export.commands.outputs import OutputFile, check_outputs
from cct_export.commands.types import Fractions, Number, OneOf, PathOr, Record, Resizing
from cct_export.errors import InvalidRequest
from cct_export.files import write_text
from cct_export.quantize.schemes import SCHEMES
from cct_export.specs import (
    AUTO,
    CHANNEL_ORDERS,
    DATA_SETS,
    MEAN,
    PARITY_SAMPLES,
    SAMPLES,
    SCALE,
    STD,
    ModelOptions,
    Normalization,
    Resize,
)
from cct_export.streams import native_stderr_hidden, redirected

DATASETS = f"{', '.join(DATA_SETS)}, a folder, TFRecord shards or an .npz file"
DATA = PathOr(DATA_SETS, "DATA")
FILE = PathOr((), "FILE")
ARTIFACT = PathOr((), "ARTIFACT")
LABELS = "FILE|NAME,..."

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

log = logging.getLogger(__name__)


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
    """The result of a command: first everything is written to files, then it is shown.

    Attributes:
        record: what ``--json`` writes; values are records and JSON types.
        exit_code: what the process ends with, unless a file cannot be written.
        files: to write beside that.
        show: prints the result.
    """

    record: Mapping[str, object]
    exit_code: int = ExitCode.PASSED
    _: KW_ONLY
    files: Sequence[OutputFile] = ()
    show: Callable[[], None] = lambda: None


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


softmax = click.option(
    "--softmax", is_flag=True, help="Append a softmax to a MODEL that ends in logits."
)
_loading = combined(
    click.option(
        "--mean",
        type=Fractions(MEAN),
        help="Subtracted from the pixels of a MODEL whose preprocessing is not in it, after "
        "--scale: a number for each channel, or one for all.",
    ),
    click.option(
        "--std",
        type=Fractions(STD),
        help="Divides the pixels after --mean: a number for each channel, or one for all.",
    ),
    click.option(
        "--scale",
        type=Fractions(SCALE, single=True),
        help="Multiplies the pixels, 0 to 255, before --mean, such as 1/255; 1 for a MODEL that "
        "takes them as they are.",
    ),
    click.option(
        "--channels",
        type=OneOf(CHANNEL_ORDERS),
        help="Order of the channels that a MODEL takes, and of --mean and --std; by default rgb.",
    ),
    click.option(
        "--resize",
        type=Resizing(),
        help="How images of another size are resized: antialiased (the default) or bilinear, which "
        "looks at four pixels only, as tf.image.resize does; squash (the default) or crop.",
    ),
    click.option(
        "--labels",
        type=PathOr((), LABELS),
        help="Names of the classes: a text file with one in each line, a JSON list, or the names.",
    ),
    click.option(
        "--import",
        "modules",
        type=PathOr((), "FILE.py"),
        multiple=True,
        help="Run this Python file first: it defines layers or functions of MODEL's that are not "
        "of Keras. It runs with your rights, so name only code that you trust; may be repeated.",
    ),
)


def loading(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a command may be told of a MODEL, and passes it on as ``options``."""

    @_loading
    @functools.wraps(function)
    def command(
        *,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        scale: tuple[float] | None,
        channels: str | None,
        resize: Resize | None,
        labels: str | None,
        modules: tuple[str, ...],
        softmax: bool = False,
        **arguments: Any,
    ) -> Any:
        given = (scale or (1.0,))[0], mean or (), std or (), channels or "rgb"
        is_given = any(value is not None for value in (mean, std, scale, channels))
        model_options = ModelOptions(
            normalization=Normalization(*given) if is_given else None,
            resize=resize,
            labels=() if labels is None else read_labels(labels),
            softmax=softmax,
            modules=tuple(map(Path, modules)),
        )
        return function(options=model_options, **arguments)

    return command


def common(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Adds ``--json``, ``-q`` and ``-v``, and makes a command of a function with an outcome."""

    @click.option(
        "--json",
        "json_path",
        type=Record(),
        help="Write the results as JSON; - is standard output.",
    )
    @click.option(
        "-q", "--quiet", is_flag=True, help="No progress and no notes: tables and errors only."
    )
    @click.option("-v", "--verbose", is_flag=True, help="Print more, and tracebacks.")
    @functools.wraps(function)
    def command(json_path: str | None, quiet: bool, verbose: bool, **arguments: Any) -> None:
        check_outputs(click.get_current_context().params)
        _configure_logging(quiet, verbose)
        reserved = json_path == "-"
        with _streams(verbose=verbose, reserved=reserved):
            outcome = function(**arguments)
            files = [*_json_file(outcome.record, json_path), *outcome.files]
            errors = [_error_of(partial(file.write, file.path)) for file in files]
        if reserved:
            errors.append(_error_of(lambda: _print_json(outcome.record)))
        with _streams(verbose=verbose, reserved=reserved):
            errors.append(_error_of(outcome.show))
            for file, error in zip(files, errors, strict=False):
                if error is None:
                    log.info("wrote %s", file.path)
        _end([error for error in errors if error is not None], outcome.exit_code)

    return command


def _json_file(record: Mapping[str, object], path: str | None) -> list[OutputFile]:
    from cct_export.records.encoding import to_text

    if path in (None, "-"):
        return []
    return [OutputFile(Path(path), lambda path: write_text(path, to_text(record)))]


def _print_json(record: Mapping[str, object]) -> None:
    from cct_export.records.encoding import to_text
    from cct_export.report.terminal import write_ascii

    write_ascii(to_text(record))


def _error_of(action: Callable[[], None]) -> Exception | None:
    """Returns the error of an action after which others follow; None if there is none."""
    try:
        action()
    except BrokenPipeError:
        raise
    except Exception as error:
        return error
    return None


def _end(errors: Sequence[Exception], exit_code: int) -> None:
    """Ends a command whose result is shown; an error comes before the verdict."""
    if errors:
        *others, last = errors
        for error in others:
            messages.report(error)
        raise last
    if exit_code:
        click.get_current_context().exit(exit_code)


@contextlib.contextmanager
def _streams(*, verbose: bool, reserved: bool) -> Iterator[None]:
    """Hides what native code says unless ``verbose``; keeps a ``reserved`` standard output free."""
    with (
        contextlib.nullcontext() if verbose else native_stderr_hidden(),
        _stdout_reserved() if reserved else contextlib.nullcontext(),
    ):
        yield


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
