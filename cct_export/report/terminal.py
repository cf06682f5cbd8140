"""The terminal: results on standard output, messages and progress on standard error."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cct_export.text import printable

log = logging.getLogger(__name__)

# Messages and progress share one console: rich moves a bar or a line of status out of the way of
# what is printed meanwhile.
STDERR = Console(stderr=True, highlight=False, markup=False, emoji=False)


class MessageHandler(logging.Handler):
    """Writes log messages to standard error, without characters that control a terminal.

    A terminal gets lines that are broken between words; a file or a pipe gets them unbroken.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the text of ``record``."""
        write(STDERR, printable(self.format(record), keep="\n\t"))


def stdout() -> Console:
    """Returns standard output; it shows strings literally, without rich's markup."""
    return Console(highlight=False, markup=False, emoji=False)


def write(console: Console, text: str) -> None:
    """Writes lines of text, broken between words where ``console`` is a terminal."""
    console.print(Text(text), soft_wrap=not console.is_terminal)


def say(text: str = "") -> None:
    """Writes a line to standard output, without characters that control a terminal."""
    write(stdout(), printable(text))


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
    with STDERR.status(Text(message)) as line:
        yield lambda message: line.update(Text(printable(message)))


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
