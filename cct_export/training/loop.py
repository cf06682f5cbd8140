"""Training a CCT so that a killed run, resumed, ends where an unbroken one does."""

import logging
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cct_export import data
from cct_export.data.dataset import Dataset, Split
from cct_export.errors import InvalidData, InvalidRequest
from cct_export.machine import versions
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training import card, curves, transfer
from cct_export.training.batches import Batches
from cct_export.training.run import History, RunDirectory
from cct_export.training.transfer import Start

log = logging.getLogger(__name__)

# Called with the epoch (from 1), the step (from 1; 0 when the epoch is over), the steps of an
# epoch, and the metrics so far.
Progress = Callable[[int, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Attributes:
        best: the ``.keras`` file with the weights of the best validation top-1.
        epochs: epochs done.
        validation_top1: of the best epoch, 0 to 1.
        top1: on the test split, 0 to 1.
        top5: on the test split, 0 to 1.
        samples: test images.
    """

    best: Path
    epochs: int
    validation_top1: float
    top1: float
    top5: float
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        return asdict(self) | {"best": str(self.best)}


class _Keeper(keras.callbacks.Callback):
    """Keeps the best weights, and after every epoch the state to resume from."""

    def __init__(self, run: RunDirectory, history: History, keeping: CCT) -> None:
        super().__init__()
        self.run = run
        self.history = history
        self.keeping = keeping

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        entry = {"epoch": epoch + 1} | {key: float(v) for key, v in (logs or {}).items()}
        if entry["val_accuracy"] > max((e["val_accuracy"] for e in self.history), default=-1.0):
            self.keeping.set_weights(self.model.get_weights())
            checkpoint.save(self.keeping, self.run.best_file)
        self.history.append(entry)
        # The state last: killed before it, the epoch is simply done again.
        self.run.write_metrics(self.history)
        curves.plot(self.history, self.run.curves_file)
        self.run.save_state(self.model, self.history)


class _Report(keras.callbacks.Callback):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress(self.epoch, batch + 1, self.params["steps"], dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.progress(self.epoch, 0, self.params["steps"], dict(logs or {}))


def train(
    spec: ModelSpec,
    recipe: TrainSpec,
    folder: Path,
    resume: bool,
    progress: Progress,
    start: Start | None = None,
) -> Trained:
    """Trains a CCT by ``recipe`` into the run directory ``folder``.

    Args:
        spec: the architecture; ``classes`` and ``labels`` are replaced by what the data has.
        recipe: how to train.
        folder: the run directory, made if missing.
        resume: go on from the last finished epoch of a run in ``folder``.
        progress: called after every step and at the end of every epoch, see ``Progress``.
        start: the model whose weights to begin with; it differs from ``spec`` in image size,
            classes and what training alone knows. None for random weights.

    Returns:
        Where the best weights are and their accuracy on the test split.

    Raises:
        InvalidData: the data cannot be used.
        InvalidRequest: the recipe cannot be followed.
        CCTExportError: the folder holds another run.
        OutputError: the folder cannot be written.
    """
    _check(recipe)
    dataset = data.read(recipe.data, (spec.image_size, spec.image_size, spec.channels))
    spec = replace(spec, classes=len(dataset.classes), labels=dataset.classes)
    if spec.classes < 2:
        raise InvalidData(f"{recipe.data} has one class only: a classifier needs two or more")
    held_out, kept = _holdout(dataset.train, recipe)
    transfer.check_frozen(recipe.freeze, spec, start)
    run = RunDirectory(folder)
    run.begin(spec, recipe, resume, None if start is None else start.to_dict())

    model = _model(spec, recipe, start)
    keeping = checkpoint.without_optimizer(model)
    _compile(model, recipe)
    history = run.load_state(model)
    model.fit(
        _batches(dataset.train, kept, spec, recipe, recipe.seed, len(history)),
        validation_data=_batches(dataset.train, held_out, spec, recipe, None),
        initial_epoch=len(history),
        epochs=recipe.epochs,
        callbacks=[_Keeper(run, history, keeping), _Report(progress)],
        shuffle=False,
        verbose=0,
    )
    return _conclude(run, spec, recipe, dataset, history)


def _model(spec: ModelSpec, recipe: TrainSpec, start: Start | None) -> CCT:
    """Returns the model before its first step."""
    keras.utils.set_random_seed(recipe.seed)
    model = CCT(spec)
    if start is not None:
        for change in transfer.take_over(start.model, model):
            log.info("%s: %s", start.source, change)
        transfer.freeze(model, recipe.freeze)
    return model


def _check(recipe: TrainSpec) -> None:
    if recipe.epochs < 1 or recipe.batch < 1:
        raise InvalidData(f"epochs ({recipe.epochs}) and batch ({recipe.batch}) must be at least 1")
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if not (math.isfinite(rate) and rate > 0 and math.isfinite(decay) and decay >= 0):
        raise InvalidRequest(
            f"a learning rate of {rate} with a weight decay of {decay} trains nothing: the first "
            "must be above 0, the second 0 or more"
        )


def _compile(model: CCT, recipe: TrainSpec) -> None:
    model.compile(
        optimizer=keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.label_smoothing
        ),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(5, name="top5"),
        ],
    )


def _holdout(split: Split, recipe: TrainSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices for validation and for training."""
    total = len(split.labels)
    cut = round(total * recipe.validation)
    if not 0 < cut < total:
        raise InvalidData(
            f"{total} training images are too few to hold out {recipe.validation:.0%} of them"
        )
    order = np.random.default_rng(recipe.seed).permutation(total)
    return np.sort(order[:cut]), np.sort(order[cut:])


def _batches(
    split: Split,
    indices: np.ndarray,
    spec: ModelSpec,
    recipe: TrainSpec,
    seed: int | None,
    epoch: int = 0,
) -> Batches:
    return Batches(
        split.images(indices), split.labels[indices], spec.classes, recipe.batch, seed, epoch
    )


def _conclude(
    run: RunDirectory, spec: ModelSpec, recipe: TrainSpec, dataset: Dataset, history: History
) -> Trained:
    """Measures the best weights on the test split and writes record and card."""
    best = checkpoint.load(run.best_file)
    _compile(best, recipe)
    indices = np.arange(len(dataset.test.labels))
    measured = best.evaluate(
        _batches(dataset.test, indices, spec, recipe, None), verbose=0, return_dict=True
    )
    trained = Trained(
        best=run.best_file,
        epochs=len(history),
        validation_top1=max(entry["val_accuracy"] for entry in history),
        top1=float(measured["accuracy"]),
        top5=float(measured["top5"]),
        samples=len(indices),
    )
    run.add_to_record(
        validation_top1=trained.validation_top1,
        test={"top1": trained.top1, "top5": trained.top5, "samples": trained.samples},
        environment={"backend": keras.backend.backend(), "python": sys.version.split()[0]}
        | versions("keras", "tensorflow", "jax", "numpy"),
    )
    card.write(run, history)
    return trained
