"""What is done now, where there is a terminal."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from cct_export.report.terminal import text

log = logging.getLogger(__name__)


@contextmanager
def saying() -> Iterator[Callable[[str], None]]:
    """Gives a callable that takes what is done now; the line goes when the work is done."""
    console = Console(stderr=True)
    if not (console.is_terminal and log.isEnabledFor(logging.INFO)):
        yield lambda message: None
        return
    with console.status("starting") as status:
        yield lambda message: status.update(text(message))


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a callable that takes how many are done, and how many there are.

    Args:
        what: is counted.
    """
    console = Console(stderr=True)
    disable = not (console.is_terminal and log.isEnabledFor(logging.INFO))
    with Progress(console=console, disable=disable, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        yield update
