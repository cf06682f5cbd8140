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
from cct_export.training.batches import Batches
from cct_export.training.distribution_base import Distribution
from cct_export.training.run import METRICS, EpochMetrics, RunDirectory, shortest, state_variables
from cct_export.training.saving import BackgroundWriter, on_host

# What Keras passes to the hooks of callbacks.
Logs = dict[str, Any] | None


class TrainingDiverged(CCTExportError):
    """The loss is NaN or infinite."""


class RunCheckpoint(keras.callbacks.Callback):
    """Saves the best weights and, after every epoch, metrics, curves and the state to resume from.

    It copies what it saves, and the files are written while the next epoch is trained.

    It comes before ``SwapEMAWeights`` in the list of callbacks: when a validation ends, the
    averaged weights are still in the model.

    Args:
        run: where to save.
        metrics: of the finished epochs; each epoch is appended.
        best: a model of the same architecture without an optimizer, to hold the best weights.
        patience: for early stopping, see ``should_stop``.
        distribution: the chief alone saves, the other workers wait for it.
        writer: writes the files, one epoch at a time.
    """

    def __init__(
        self,
        run: RunDirectory,
        metrics: list[EpochMetrics],
        best: CCT,
        patience: int,
        distribution: Distribution,
        writer: BackgroundWriter,
    ) -> None:
        super().__init__()
        self.run = run
        self.metrics = metrics
        self.best = best
        self.patience = patience
        self.distribution = distribution
        self.writer = writer

    def on_test_end(self, logs: Logs = None) -> None:
        """Copies the weights that were validated, when those before are written."""
        self._wait()
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

    def on_train_end(self, logs: Logs = None) -> None:
        """Waits until the last epoch is written."""
        self._wait()

    def _wait(self) -> None:
        self.distribution.on_chief(self.writer.wait)

    def _save(self, entry: EpochMetrics) -> bytes:
        """Begins to write the files of an epoch; returns its metrics for the other workers."""
        metrics = [*self.metrics, entry]
        is_best = _accuracy(entry) > max(map(_accuracy, self.metrics), default=-math.inf)
        variables = on_host(state_variables(self.model)), on_host(self.model.optimizer.variables)

        def write() -> None:
            if is_best:
                checkpoint.save(self.best, self.run.best_file)
            # The state last: if the process is killed before, the epoch is repeated on resume.
            self.run.write_metrics(metrics)
            plots.plot_curves(metrics, self.run.curves_file)
            self.run.save_state(variables, metrics)

        self.writer.submit(write)
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
    swaps them exactly. On JAX it swaps them on the device, where Keras copies each to the host.
    """

    def _backend_swap_variables(self, optimizer: Any) -> None:
        for variable, average in zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        ):
            value = variable.value
            variable.assign(average)
            average.assign(value)

    def _tf_swap_variables(self, optimizer: Any) -> None:
        super()._backend_swap_variables(optimizer)


class StopOnNaN(keras.callbacks.Callback):
    """Ends a run whose loss is NaN or infinite, with the last good epoch saved.

    It comes before ``RunCheckpoint`` in the list of callbacks: the last step of an epoch shows in
    the validation loss only, and its weights must not be saved.

    Args:
        run: for the message.
        metrics: of the finished epochs.
        batches: of an epoch; an item may be several steps.
    """

    def __init__(self, run: RunDirectory, metrics: list[EpochMetrics], batches: Batches) -> None:
        super().__init__()
        self.run = run
        self.metrics = metrics
        self.batches = batches
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remembers the epoch for the message."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Checks the mean loss of the epoch so far.

        Raises:
            TrainingDiverged: it is not finite.
        """
        self._check("loss", logs, f"epoch {self.epoch}, step {self.batches.steps_done(batch)}")

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
    """Reports every step, or where one dispatch takes several the last of them, and every epoch.

    Args:
        progress: called then.
        batches: of an epoch.
    """

    def __init__(self, progress: StepProgress, batches: Batches) -> None:
        super().__init__()
        self.progress = progress
        self.batches = batches
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remembers the epoch."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Reports a step."""
        done = self.batches.steps_done(batch)
        self.progress(self.epoch, done, self.batches.steps, dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Reports the end of an epoch."""
        self.progress(self.epoch, 0, self.batches.steps, dict(logs or {}))


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
