"""The terminal: tables on standard output, progress on standard error."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cct_export.report.columns import Column, Item
from cct_export.text import printable

log = logging.getLogger(__name__)

# Columns of a table that goes into a file or a pipe.
WIDTH = 160


def console() -> Console:
    """Returns standard output; it shows strings literally, without rich's markup."""
    stdout = Console(highlight=False, markup=False, emoji=False)
    if not stdout.is_terminal:
        stdout.width = WIDTH
    return stdout


def table(columns: Sequence[Column[Item]], items: Iterable[Item], title: str = "") -> Table:
    """Returns a table with a row per item, for ``console().print``."""
    drawn = Table(box=None, title=printable(title) or None, title_justify="left", pad_edge=False)
    for column in columns:
        drawn.add_column(
            printable(column.title),
            justify="left" if column.value is None else "right",
            overflow="fold",
            no_wrap=not column.wraps,
        )
    for item in items:
        drawn.add_row(*(printable(column.cell(item)) for column in columns))
    return drawn


def _stderr() -> tuple[Console, bool]:
    """Returns standard error, and whether progress is shown there."""
    stderr = Console(stderr=True)
    return stderr, stderr.is_terminal and log.isEnabledFor(logging.INFO)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Shows a line of status until the block ends.

    Yields:
        A function that replaces the line.
    """
    stderr, shown = _stderr()
    if not shown:
        yield lambda message: None
        return
    with stderr.status("starting") as line:
        yield lambda message: line.update(Text(printable(message)))


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar until the block ends.

    Args:
        unit: what is counted, in the plural.

    Yields:
        A function that takes how many are done, and how many there are.
    """
    stderr, shown = _stderr()
    with Progress(console=stderr, disable=not shown, transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingProgress:
    """The ``progress`` of ``cct_export.train``: a bar for each epoch, and a log line at its end.

    A context manager. Without a terminal there is no bar.

    Args:
        epochs: number of epochs.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        stderr, shown = _stderr()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr,
            disable=not shown,
        )
        self.task = self.bar.add_task("training", total=None, metrics="")

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
        text = " ".join(
            f"{name} {metrics[name]:.4f}"
            for name in ("loss", "accuracy", "val_accuracy")
            if name in metrics
        )
        if step == 0:
            log.info("epoch %d/%d %s", epoch, self.epochs, text)
            self.bar.reset(self.task, total=steps)
            return
        self.bar.update(
            self.task,
            description=f"epoch {epoch}/{self.epochs}",
            completed=step,
            total=steps,
            metrics=text,
        )
