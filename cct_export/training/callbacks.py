"""Keras callbacks of a training run: checkpoints, EMA, NaN check, progress, experiment trackers."""

import json
import math
import os
import uuid
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from cct_export.errors import CCTExportError, MissingDependency
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.names import choose
from cct_export.specs.progress import StepProgress
from cct_export.specs.train import LOGGERS
from cct_export.training import plots
from cct_export.training.distribution_base import Distribution
from cct_export.training.run import METRICS, EpochMetrics, RunDirectory, shortest

# What Keras passes to the hooks of callbacks.
Logs = dict[str, Any] | None


class TrainingDiverged(CCTExportError):
    """The loss is NaN or infinite."""


class RunCheckpoint(keras.callbacks.Callback):
    """Saves the best weights and, after every epoch, metrics, curves and the state to resume from.

    It comes before ``SwapEMAWeights`` in the list of callbacks: when a validation ends, the
    averaged weights are still in the model.

    Args:
        run: where to save.
        metrics: of the finished epochs; each epoch is appended.
        best: a model of the same architecture without an optimizer, to hold the best weights.
        patience: for early stopping, see ``should_stop``.
        distribution: the chief alone saves, the other workers wait for it.
    """

    def __init__(
        self,
        run: RunDirectory,
        metrics: list[EpochMetrics],
        best: CCT,
        patience: int,
        distribution: Distribution,
    ) -> None:
        super().__init__()
        self.run = run
        self.metrics = metrics
        self.best = best
        self.patience = patience
        self.distribution = distribution

    def on_test_end(self, logs: Logs = None) -> None:
        """Copies the weights that were validated."""
        self.best.set_weights(self.model.cct.get_weights())

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Saves the epoch."""
        learning_rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        values = {**(logs or {}), "learning_rate": learning_rate}
        entry = {"epoch": epoch + 1} | {name: shortest(values[name]) for name in METRICS}
        entry = json.loads(self.distribution.on_chief(lambda: self._save(entry)))
        self.metrics.append(entry)
        if should_stop(self.metrics, self.patience):
            self.model.stop_training = True

    def _save(self, entry: EpochMetrics) -> bytes:
        """Writes the files of an epoch; returns its metrics for the other workers."""
        metrics = [*self.metrics, entry]
        if _accuracy(entry) > max(map(_accuracy, self.metrics), default=-math.inf):
            checkpoint.save(self.best, self.run.best_file)
        # The state last: if the process is killed before, the epoch is repeated on resume.
        self.run.write_metrics(metrics)
        plots.plot_curves(metrics, self.run.curves_file)
        self.run.save_state(self.model, metrics)
        return json.dumps(entry).encode()


def _accuracy(epoch: EpochMetrics) -> float:
    """Returns the validation accuracy of an epoch, less than any other where it is NaN."""
    return -1.0 if math.isnan(epoch["val_accuracy"]) else epoch["val_accuracy"]


def should_stop(metrics: list[EpochMetrics], patience: int) -> bool:
    """Tells whether the last ``patience`` epochs had no better validation accuracy; 0 for never."""
    if not patience or not metrics:
        return False
    best = int(np.argmax([_accuracy(epoch) for epoch in metrics]))
    return len(metrics) - 1 - best >= patience


class SwapEMAWeights(keras.callbacks.SwapEMAWeights):
    """Validates the exponential moving average of the weights.

    On TensorFlow Keras swaps weights by addition and subtraction, which rounds them; this class
    swaps them exactly.
    """

    def _tf_swap_variables(self, optimizer: Any) -> None:
        self._backend_swap_variables(optimizer)


class StopOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss is NaN or infinite, with the last good epoch saved.

    It comes before ``RunCheckpoint`` in the list of callbacks: the last step of an epoch shows in
    the validation loss only, and its weights must not be saved.

    Args:
        run: for the message.
        metrics: of the finished epochs.
    """

    def __init__(self, run: RunDirectory, metrics: list[EpochMetrics]) -> None:
        super().__init__()
        self.run = run
        self.metrics = metrics
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remembers the epoch for the message."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Checks the mean loss of the epoch so far.

        Raises:
            TrainingDiverged: it is not finite.
        """
        self._check("loss", logs, f"epoch {self.epoch}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Checks the validation loss.

        Raises:
            TrainingDiverged: it is not finite.
        """
        self._check("val_loss", logs, f"the validation of epoch {self.epoch}")

    def _check(self, name: str, logs: Logs, when: str) -> None:
        loss = float((logs or {}).get(name, 0.0))
        if math.isfinite(loss):
            return
        saved = (
            f"{self.run.best_file} and the state are those of epoch {len(self.metrics)}"
            if self.metrics
            else "nothing was saved"
        )
        raise TrainingDiverged(
            f"the loss became {loss} in {when}: {saved}; start again "
            "with a lower learning rate, longer warm-up or a clip norm"
        )


class ProgressReport(keras.callbacks.Callback):
    """Reports every step and epoch.

    Args:
        progress: called after every step and epoch.
    """

    def __init__(self, progress: StepProgress) -> None:
        super().__init__()
        self.progress = progress
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remembers the epoch."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Reports a step."""
        self.progress(self.epoch, batch + 1, self.params["steps"], dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Reports the end of an epoch."""
        self.progress(self.epoch, 0, self.params["steps"], dict(logs or {}))


class WeightsAndBiases(keras.callbacks.Callback):
    """Logs every epoch to Weights & Biases, whose own callbacks need TensorFlow's Keras.

    A resumed run continues under the same id, which is saved in the run directory. ``WANDB_MODE``,
    ``WANDB_PROJECT``, ``WANDB_ENTITY`` and the login are those of the library.

    Args:
        run: the run directory; the log is in ``wandb`` in it.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.directory = run

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts or resumes the log."""
        import wandb

        folder = self.directory.path / "wandb"
        folder.mkdir(exist_ok=True)
        id_file = folder / "id.txt"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex[:8])
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cct-export"),
            dir=str(self.directory.path),
            id=id_file.read_text(),
            resume="allow",
            config=json.loads(self.directory.record().to_json()),
        )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs an epoch."""
        self.run.log({key: float(v) for key, v in (logs or {}).items()}, step=epoch + 1)

    def on_train_end(self, logs: Logs = None) -> None:
        """Ends the log."""
        self.run.finish()


def check_loggers(names: Sequence[str]) -> None:
    """Checks, before any work, that every experiment tracker is available.

    Raises:
        InvalidRequest: unknown tracker.
        MissingDependency: its library is not installed.
    """
    for name in names:
        choose(name, LOGGERS, what="log")
        try:
            __import__(name)
        except ImportError as error:
            raise MissingDependency.of(name, name) from error


def loggers(names: Sequence[str], run: RunDirectory) -> list[keras.callbacks.Callback]:
    """Returns the callbacks of the experiment trackers ``names``, which log into ``run``."""
    callbacks: list[keras.callbacks.Callback] = []
    if "tensorboard" in names:
        folder = str(run.path / "tensorboard")
        callbacks.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    if "wandb" in names:
        callbacks.append(WeightsAndBiases(run))
    return callbacks
