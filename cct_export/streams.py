"""Standard output and standard error: what others write to them cannot control a terminal."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from cct_export.text import printable

# Names of standard streams that were closed when the program started.
closed: set[str] = set()


class CleanStream:
    """A stream that shows any text: none of it controls a terminal or cannot be encoded.

    What the encoding of the stream lacks becomes ``?``, which is as wide.

    Attributes:
        unfiltered: the stream below, for codes that are meant to control the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        self.unfiltered = stream

    def write(self, text: str) -> int:
        """Writes ``text`` with its lines, and returns its length."""
        self.unfiltered.write(printable(text.expandtabs(), keep="\n"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


@contextlib.contextmanager
def clean_streams() -> Iterator[None]:
    """Lets everything that Python writes to the standard streams pass a ``CleanStream``."""
    with (
        contextlib.redirect_stdout(cast(TextIO, CleanStream(sys.stdout))),
        contextlib.redirect_stderr(cast(TextIO, CleanStream(sys.stderr))),
    ):
        yield


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
        _copied(saved, sys.stderr.encoding) as stderr,
        contextlib.redirect_stderr(_in_place_of(sys.stderr, stderr)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def quiet_start() -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a library may start without its banner; with -v it shows."""
    if logging.getLogger("cct_export").isEnabledFor(logging.DEBUG):
        return contextlib.nullcontext()
    return native_stderr_hidden()


@contextlib.contextmanager
def _copied(descriptor: int, encoding: str) -> Iterator[TextIO]:
    """Yields a stream to where ``descriptor`` leads, a line at a time."""
    stream = os.fdopen(os.dup(descriptor), "w", buffering=1, encoding=encoding)
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):  # Its disk is full, as whoever wrote to it has seen.
            stream.close()


def _in_place_of(stream: TextIO, copy: TextIO) -> TextIO:
    """Returns what takes the place of ``stream`` while its descriptor is redirected."""
    if not _writes_to(stream, 2):
        return stream
    return cast(TextIO, CleanStream(copy)) if isinstance(stream, CleanStream) else copy


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    """Whether ``stream`` writes to ``descriptor``; a caller may have replaced it."""
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False
