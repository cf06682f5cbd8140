"""Standard error of native code: libraries in C++ write to it past Python."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def redirected(descriptor: int, target: int) -> Iterator[int]:
    """Redirects a file descriptor, for native code too; yields a copy of the original."""
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield saved
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


@contextlib.contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Drops what native code writes to standard error; messages of Python still get there."""
    sys.stderr.flush()
    with (
        Path(os.devnull).open("wb") as null,
        redirected(2, null.fileno()) as saved,
        os.fdopen(os.dup(saved), "w", buffering=1) as stderr,
        contextlib.redirect_stderr(stderr if _writes_to(sys.stderr, 2) else sys.stderr),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def quiet_start() -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a library may start without its banner; with -v it shows."""
    if logging.getLogger("cct_export").isEnabledFor(logging.DEBUG):
        return contextlib.nullcontext()
    return native_stderr_hidden()


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    """Whether ``stream`` writes to ``descriptor``; a caller may have replaced it."""
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False
