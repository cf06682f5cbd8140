"""Options that every command has, and what they switch."""

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from cct_export.files import write_text

Run = Callable[..., dict[str, Any]]


def common(function: Run) -> Callable[..., None]:
    """Adds ``--json``, ``-q`` and ``-v``.

    The function returns the JSON record; its key ``exit_code``, if there is one, is not printed
    but ends the command with that code.
    """

    @click.option("--json", "json_path", metavar="FILE|-", help="Write the record as JSON; - is standard output.")  # fmt: skip
    @click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more, and tracebacks.")
    @functools.wraps(function)
    def wrapper(json_path: str | None, quiet: bool, verbose: bool, **arguments: Any) -> None:
        _configure_logging(quiet, verbose)
        with _reserved_stdout(json_path == "-"):
            record = function(**arguments)
        exit_code = record.pop("exit_code", 0)
        if json_path is not None:
            text = json.dumps(record, indent=2) + "\n"
            if json_path == "-":
                click.echo(text, nl=False)
            else:
                write_text(Path(json_path), text)
        if exit_code:
            click.get_current_context().exit(exit_code)

    return wrapper


def _configure_logging(quiet: bool, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("cct_export")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


@contextlib.contextmanager
def _reserved_stdout(reserve: bool) -> Iterator[None]:
    """Sends to standard error what libraries print, natively too, so that JSON stands alone."""
    if not reserve:
        yield
        return
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            saved = os.dup(1)
        except OSError:
            yield
            return
        try:
            os.dup2(2, 1)
            yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)


@contextlib.contextmanager
def _native_stderr_hidden() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def start_keras(backend: str | None = None) -> None:
    """Imports Keras without TensorFlow's start-up messages (``-v`` shows them).

    Args:
        backend: what the command needs; None leaves the choice to KERAS_BACKEND.

    Raises:
        MissingDependency: Keras or its backend is not installed.
    """
    from cct_export.errors import MissingDependency

    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    verbose = logging.getLogger("cct_export").isEnabledFor(logging.DEBUG)
    try:
        with contextlib.nullcontext() if verbose else _native_stderr_hidden():
            import keras  # noqa: F401
    except ImportError as error:
        raise MissingDependency(error.name or "keras", "tensorflow") from error
