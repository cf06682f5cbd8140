"""Options that every command has, and what they switch."""

import contextlib
import functools
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from cct_export.commands.plain import plain
from cct_export.files import check_writable, write_text
from cct_export.specs import BEST, METHODS, ROUNDINGS, CalibrationSpec

if TYPE_CHECKING:
    from cct_export.records import Exported

PARITY_FAILED = 3
INCONCLUSIVE = 7
_ARTIFACT_FILES = (".keras", ".tflite", ".onnx", ".tflite.json", ".onnx.json")

Run = Callable[..., dict[str, Any]]

# The name is checked by the API, which knows which format has which scheme.
scheme = click.option(
    "--quantize",
    "scheme",
    metavar="SCHEME",
    default="none",
    help="none, fp16, int8-dynamic, int8, int8-full, int16x8, int4-weight, or auto for the fastest "
    "on this machine that keeps the bounds.",
)
samples = click.option(
    "--samples",
    type=click.IntRange(1),
    default=1000,
    help="Images to compare on.",
)
no_fold = click.option(
    "--no-fold",
    metavar="NAME",
    multiple=True,
    help="Leave a fold of the graph out, to find out what it does; may be repeated. The folds: "
    "rescaling, pool-padding, norm-affine, query-scale, key-bias, value-bias, query-key, "
    "value-output, fuse-qkv, pooling-bias, centred-residual.",
)
output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; by default named after model and scheme.",
)


def quantization(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how integers are chosen."""
    for option in (
        click.option(
            "--max-drop",
            type=click.FloatRange(0, 100),
            metavar="POINTS",
            help="Points of top-1 accuracy that auto may lose at most; needs labelled --data.",
        ),
        click.option(
            "--min-sqnr",
            type=float,
            metavar="DB",
            help="Signal to noise ratio of the logits at least: the worst steps go back to float "
            "until it holds.",
        ),
        click.option(
            "--rounding",
            type=click.Choice(ROUNDINGS),
            default=ROUNDINGS[0],
            help="Of weights: learned on the calibration images, or to the nearest integer.",
        ),
        click.option(
            "--calibrate",
            type=click.Choice([*METHODS, BEST]),
            default=str(CalibrationSpec.methods),
            help="How the range of a tensor follows from its values; best tries all for each "
            "tensor and takes the one that harms the logits least.",
        ),
    ):
        function = option(function)
    return function


def images(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say which images calibrate and prove parity."""
    for option in (
        samples,
        click.option(
            "--num-calibration-samples",
            "calibration",
            type=click.IntRange(1),
            default=200,
            help="Training images to calibrate with.",
        ),
        click.option(
            "--data",
            help="Images for calibration (training split) and parity (test split): cifar10, "
            "cifar100, digits, a folder, TFRecord shards or an .npz. Without it those of the run "
            "directory, else the model's calibration record, and crops of photographs.",
        ),
    ):
        function = option(function)
    return function


def report_export(outcome: "Exported") -> dict[str, Any]:
    """Prints an export's outcome and returns its record."""
    from cct_export.report import console

    console.exported(outcome)
    return outcome.to_dict() | {"exit_code": 0 if outcome.parity.passed else PARITY_FAILED}


def check_plot(path: Path) -> None:
    """Refuses, before any work, a picture that cannot be written."""
    if path.suffix != ".png":
        raise click.BadParameter(f"{path} does not end in .png", param_hint="--plot")
    check_writable(path)


def common(function: Run) -> Callable[..., None]:
    """Adds ``--json``, ``-q`` and ``-v``.

    The function returns the JSON record; its key ``exit_code``, if there is one, is not printed
    but ends the command with that code.
    """

    @click.option(
        "--json",
        "json_path",
        metavar="FILE|-",
        help="Write the record as JSON; - is standard output.",
    )
    @click.option(
        "-q", "--quiet", is_flag=True, help="No progress and no notes: tables and errors only."
    )
    @click.option("-v", "--verbose", is_flag=True, help="Print more, and tracebacks.")
    @functools.wraps(function)
    def wrapper(json_path: str | None, quiet: bool, verbose: bool, **arguments: Any) -> None:
        if json_path not in (None, "-"):
            check_record_path(json_path)
        with contextlib.ExitStack() as streams:
            if not verbose:
                streams.enter_context(_native_noise_hidden())
            if json_path == "-":
                streams.enter_context(_reserved_stdout())
            _configure_logging(quiet, verbose)
            record = function(**arguments)
        exit_code = record.pop("exit_code", 0)
        if json_path is not None:
            text = json.dumps(record, indent=2, allow_nan=False) + "\n"
            if json_path == "-":
                click.echo(text, nl=False)
            else:
                write_text(Path(json_path), text)
        if exit_code:
            click.get_current_context().exit(exit_code)

    return wrapper


def check_record_path(path: str) -> None:
    """Refuses, before any work, a path that cannot be written or belongs to an artifact."""
    if path.endswith(_ARTIFACT_FILES):
        raise click.BadParameter(
            f"{path} is the name of an artifact or its sidecar: choose another"
        )
    check_writable(Path(path))


class _Plain(logging.Formatter):
    """Messages alone, and nothing in them that controls a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the text of ``record``."""
        return plain(super().format(record))


def _configure_logging(quiet: bool, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(message)s"))
    logger = logging.getLogger("cct_export")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


@contextlib.contextmanager
def _pointed(descriptor: int, target: int) -> Iterator[int]:
    """Points a file descriptor elsewhere, natively; gives a copy of what it was."""
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield saved
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


@contextlib.contextmanager
def _reserved_stdout() -> Iterator[None]:
    """Sends to standard error what libraries print, natively too, so that JSON stands alone."""
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr), _pointed(1, 2):
        yield


@contextlib.contextmanager
def _native_noise_hidden() -> Iterator[None]:
    """Drops what C++ code writes to standard error; Python's messages still get there."""
    sys.stderr.flush()
    with (
        Path(os.devnull).open("wb") as nowhere,
        _pointed(2, nowhere.fileno()) as saved,
        os.fdopen(os.dup(saved), "w", buffering=1) as terminal,
        contextlib.redirect_stderr(terminal if _is_descriptor(sys.stderr, 2) else sys.stderr),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _is_descriptor(stream: TextIO, descriptor: int) -> bool:
    """Tells whether ``stream`` writes to ``descriptor``; a caller may have put another there."""
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def start_keras(backend: str | None = None) -> None:
    """Imports Keras, see ``model.backend.start``; a function, so that ``--help`` does not."""
    from cct_export.model.backend import start

    start(backend)
