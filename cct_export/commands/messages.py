"""Errors on standard error, each one line."""

import sys

from cct_export.errors import CCTExportError
from cct_export.text import one_line

MAX_LENGTH = 600
# TensorFlow's own name for the lack of memory.
_NO_MEMORY = "ResourceExhaustedError"


def say_error(message: str) -> None:
    """Writes a line to standard error; a terminal gets it broken between words.

    Where the disk of standard error is full, the exit code alone tells.
    """
    try:
        if sys.stderr.isatty():
            from cct_export.report.terminal import STDERR, write

            write(STDERR, message)
        else:
            sys.stderr.write(f"{message}\n")
    except BrokenPipeError:
        raise
    except OSError:
        pass


def report(error: Exception) -> int:
    """Writes ``error`` to standard error as one line, and returns its exit code."""
    exit_code = 1
    if isinstance(error, CCTExportError):
        message, exit_code = _shortened(str(error)), error.exit_code
    elif isinstance(error, OSError):
        file = f" {error.filename}" if error.filename else ""
        message = _shortened(f"cannot read or write{file}: {error.strerror or error}")
    elif isinstance(error, MemoryError) or type(error).__name__ == _NO_MEMORY:
        message = "there is not enough memory: close other programs, or take smaller files"
    else:
        message = f"unexpected {type(error).__name__}: {_shortened(str(error))}"
        message += " (this is a bug: -v shows the traceback)"
    say_error(f"error: {message}")
    return exit_code


def _shortened(text: str) -> str:
    """Returns ``text`` on one line of limited length: converters quote whole graphs."""
    line = one_line(text)
    if len(line) <= MAX_LENGTH:
        return line
    return f"{line[:MAX_LENGTH]} ... (-v shows all)"
