"""Training progress on the terminal: a bar where there is one, else a line per epoch."""

import logging
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)


class TrainingProgress:
    """A callable for ``train`` that shows how far it is; a context manager.

    Args:
        epochs: epochs in all.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and log.isEnabledFor(logging.INFO)),
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

    def __call__(self, epoch: int, step: int, steps: int, metrics: dict[str, float]) -> None:
        """Shows one step; step 0 means that the epoch is over."""
        text = " ".join(
            f"{key} {metrics[key]:.4f}"
            for key in ("loss", "accuracy", "val_accuracy")
            if key in metrics
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
