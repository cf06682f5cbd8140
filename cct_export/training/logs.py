"""Where else the course of a run is logged: TensorBoard, Weights & Biases."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.specs.train import LOGS


def check(names: Sequence[str]) -> None:
    """Refuses, before any work, a log that cannot be written.

    Raises:
        InvalidRequest: there is no such log.
        MissingDependency: its library is not installed.
    """
    for name in names:
        if name not in LOGS:
            raise InvalidRequest(f"no log is called {name!r}: there is {', '.join(LOGS)}")
        try:
            __import__(name)
        except ImportError as error:
            raise MissingDependency.of(name, name) from error


def callbacks(
    names: Sequence[str], folder: Path, asked: dict[str, Any]
) -> list[keras.callbacks.Callback]:
    """Returns what writes the logs.

    Args:
        names: of ``LOGS``.
        folder: the run directory; ``tensorboard`` and ``wandb`` are folders in it.
        asked: the record of the run, kept with it where a log has a place for that.
    """
    makers = {"tensorboard": _tensorboard, "wandb": _WeightsAndBiases}
    return [makers[name](folder, asked) for name in dict.fromkeys(names)]  # type: ignore[operator]


def _tensorboard(folder: Path, asked: dict[str, Any]) -> keras.callbacks.Callback:
    return keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)


class _WeightsAndBiases(keras.callbacks.Callback):
    """Logs every epoch; the library's own callbacks are of TensorFlow's Keras.

    A resumed run goes on under the same id, which is in the run directory. ``WANDB_MODE``,
    ``WANDB_PROJECT``, ``WANDB_ENTITY`` and the login are the library's own.
    """

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        super().__init__()
        self.folder, self.asked = folder, asked

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins the run, or goes on with it."""
        import wandb

        place = self.folder / "wandb"
        place.mkdir(exist_ok=True)
        known = place / "id.txt"
        if not known.exists():
            known.write_text(uuid.uuid4().hex[:8])
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cct-export"),
            dir=str(self.folder),
            id=known.read_text(),
            resume="allow",
            config=self.asked,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Logs an epoch."""
        self.run.log({key: float(v) for key, v in (logs or {}).items()}, step=epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the run."""
        self.run.finish()
