"""The terminal: results on standard output, messages and progress on standard error.

Whatever a command shows passes a console of this module, which lets no text control the terminal.
"""

import copy
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Number
from types import TracebackType
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from cct_export.text import one_line, printable

log = logging.getLogger(__name__)


class CleanConsole(Console):
    """A console that shows strings literally: only rich's own codes control the terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if self.width < 1:  # COLUMNS=0: rich would show nothing
            self.width = 80

    @property
    def file(self) -> IO[str]:
        """The stream below the one that would remove rich's codes too."""
        stream = super().file
        return getattr(stream, "unfiltered", stream)

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yields the segments of ``renderable`` with clean text, and without links."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                style = segment.style and segment.style.update_link(None)
                yield Segment(printable(segment.text, keep="\n"), style)


# Messages and progress share one console: rich moves a bar or a line of status out of the way of
# what is printed meanwhile.
STDERR = CleanConsole(stderr=True)


class MessageHandler(logging.Handler):
    """Writes log messages to standard error; what a message quotes begins no line of its own.

    A terminal gets lines that are broken between words; a file or a pipe gets them unbroken.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the text of ``record``; a full disk does not end what the message is about."""
        quoting = copy.copy(record)
        if isinstance(record.args, tuple):
            quoting.args = tuple(
                value if isinstance(value, Number) else one_line(value) for value in record.args
            )
        try:
            write(STDERR, self.format(quoting))
        except BrokenPipeError:
            raise
        except OSError:
            pass  # There is no place left to say so.


def stdout() -> Console:
    """Returns the console of standard output.

    While a line of status is shown, rich takes over both streams. Then it is the console of that
    line on a terminal, but still standard output in a file or a pipe.
    """
    if isinstance(sys.stdout, FileProxy) and sys.stdout.isatty():
        return STDERR
    return CleanConsole()


def write(console: Console, text: str) -> None:
    """Writes lines of text, broken between words where ``console`` is a terminal."""
    console.print(Text(printable(text, keep="\n")), soft_wrap=not console.is_terminal)


def say(text: str = "") -> None:
    """Writes a line to standard output."""
    write(stdout(), printable(text))


def write_ascii(text: str) -> None:
    """Writes ASCII text such as JSON to standard output as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def shows_progress() -> bool:
    """Returns whether progress is shown: on a terminal, unless the user wants silence."""
    return STDERR.is_terminal and log.isEnabledFor(logging.INFO)


@contextmanager
def status(message: str = "starting") -> Iterator[Callable[[str], None]]:
    """Shows a line of status until the block ends, then removes it.

    Args:
        message: the first line.

    Yields:
        A function that replaces the line.
    """
    if not shows_progress():
        yield lambda message: None
        return
    with STDERR.status(Text(one_line(message))) as line:
        yield lambda message: line.update(Text(one_line(message)))


class TrainingProgress:
    """The ``progress`` of ``cct_export.train``: a bar for each epoch, and a log line at its end.

    A context manager. Without a terminal there is no bar.

    Args:
        epochs: number of epochs.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),  # a line of 60 cells has room for everything
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=STDERR,
            transient=True,
            disable=not shows_progress(),
        )
        self.task = self.bar.add_task("starting", total=None, metrics="")

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def __call__(self, epoch: int, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Shows a step; step 0 is the end of the epoch."""
        figures = [
            f"{name} {metrics[name]:.4f}"
            for name in ("loss", "accuracy", "val_accuracy")
            if name in metrics
        ]
        if step == 0:
            log.info("epoch %d/%d %s", epoch, self.epochs, " ".join(figures))
            self.bar.reset(self.task, total=steps)
            return
        self.bar.update(
            self.task,
            description=f"epoch {epoch}/{self.epochs}",
            completed=step,
            total=steps,
            metrics=" ".join(figures[:2]),
        )
