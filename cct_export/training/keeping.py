"""What happens while a model learns: what is kept, when it stops, what is told."""

import json
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cct_export.errors import CCTExportError
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.training import curves
from cct_export.training.distribution import Alone
from cct_export.training.run import History, RunDirectory

# Called with the epoch (from 1), the step (from 1; 0 when the epoch is over), the steps of an
# epoch, and the metrics so far.
Progress = Callable[[int, int, int, dict[str, float]], None]


class Diverged(CCTExportError):
    """The loss is no number any more."""


class Keeper(keras.callbacks.Callback):
    """Keeps the best weights, and after every epoch the state to resume from.

    It stands before ``Averages`` in the list of callbacks: when a validation ends, the
    averaged weights are still in the model.

    Args:
        run: where to keep them.
        history: of the epochs so far, in which every epoch is entered.
        keeping: a model of the same architecture without an optimizer.
        patience: epochs without a better validation after which to stop; 0 for never.
        together: who trains; the chief alone keeps, and the others wait for it.
    """

    def __init__(
        self,
        run: RunDirectory,
        history: History,
        keeping: CCT,
        patience: int,
        together: Alone | None = None,
    ) -> None:
        super().__init__()
        self.together = together or Alone()
        self.run = run
        self.history = history
        self.keeping = keeping
        self.patience = patience

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Takes the weights that were validated."""
        self.keeping.set_weights(self.model.cct.get_weights())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes weights, metrics, curves and state."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        entry = {"epoch": epoch + 1} | {key: float(v) for key, v in (logs or {}).items()}
        entry["learning_rate"] = rate
        entry = json.loads(self.together.once(lambda: self._kept(entry)))
        self.history.append(entry)
        if is_over(self.history, self.patience):
            self.model.stop_training = True

    def _kept(self, entry: dict[str, float]) -> bytes:
        """Writes the files of an epoch; returns its entry."""
        history = [*self.history, entry]
        if entry["val_accuracy"] > max((e["val_accuracy"] for e in self.history), default=-1.0):
            checkpoint.save(self.keeping, self.run.best_file)
        # The state last: killed before it, the epoch is simply done again.
        self.run.write_metrics(history)
        curves.plot(history, self.run.curves_file)
        self.run.save_state(self.model, history)
        return json.dumps(entry).encode()


def is_over(history: History, patience: int) -> bool:
    """Tells whether ``patience`` epochs in a row brought nothing better."""
    if not patience or not history:
        return False
    best = int(np.argmax([entry["val_accuracy"] for entry in history]))
    return len(history) - 1 - best >= patience


class Averages(keras.callbacks.SwapEMAWeights):
    """Has the averaged weights in the model while it is validated."""

    def _tf_swap_variables(self, optimizer: Any) -> None:
        # Keras swaps on TensorFlow by adding and subtracting, which rounds the weights.
        self._backend_swap_variables(optimizer)


class Guard(keras.callbacks.Callback):
    """Ends a run whose loss is no number any more, with the last good epoch on disk.

    It stands before ``Keeper`` in the list of callbacks: the last step of an epoch shows in the
    validation alone, and what it ruined is not to be kept.

    Args:
        run: for the message.
        history: of the epochs so far.
    """

    def __init__(self, run: RunDirectory, history: History) -> None:
        super().__init__()
        self.run = run
        self.history = history
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the mean loss of the epoch so far.

        Raises:
            Diverged: it is not finite.
        """
        self._check("loss", logs, f"epoch {self.epoch}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss of the validation.

        Raises:
            Diverged: it is not finite.
        """
        self._check("val_loss", logs, f"the validation of epoch {self.epoch}")

    def _check(self, name: str, logs: dict[str, float] | None, when: str) -> None:
        loss = float((logs or {}).get(name, 0.0))
        if math.isfinite(loss):
            return
        kept = (
            f"{self.run.best_file} and the state are as epoch {len(self.history)} left them"
            if self.history
            else "nothing was kept"
        )
        raise Diverged(
            f"the loss became {loss} in {when}: {kept}; begin again "
            "with a lower learning rate, longer warm-up or a clip norm"
        )


class Report(keras.callbacks.Callback):
    """Tells how far a run is.

    Args:
        progress: what to tell it to.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tells of a step."""
        self.progress(self.epoch, batch + 1, self.params["steps"], dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tells that the epoch is over."""
        self.progress(self.epoch, 0, self.params["steps"], dict(logs or {}))
