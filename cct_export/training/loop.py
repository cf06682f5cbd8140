"""Training a CCT so that a killed run, resumed, ends where an unbroken one does."""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cct_export import data
from cct_export.data.dataset import Dataset, Split, fingerprint
from cct_export.data.encoded import check_readable
from cct_export.errors import CCTExportError, InvalidData
from cct_export.machine import versions
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.training import card, transfer
from cct_export.training.batches import Batches, resident
from cct_export.training.distribution import Alone
from cct_export.training.keeping import Averages, Guard, Keeper, Progress, Report, is_over
from cct_export.training.learner import check as check_recipe
from cct_export.training.learner import compiled
from cct_export.training.logs import callbacks as watchers
from cct_export.training.logs import check as check_logs
from cct_export.training.run import History, RunDirectory
from cct_export.training.transfer import Start

# A split, the rows of it for validation, and those for training.
Material = tuple[Split, np.ndarray, np.ndarray]

log = logging.getLogger(__name__)


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
        worker: which of the workers this is; the run directory is with worker 0.
    """

    best: Path
    epochs: int
    validation_top1: float
    top1: float
    top5: float
    samples: int
    worker: int = 0

    @classmethod
    def of(cls, fields: dict[str, Any], worker: int) -> "Trained":
        """Returns what ``to_dict`` was made of, for one of the workers."""
        return cls(**(fields | {"best": Path(fields["best"]), "worker": worker}))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types."""
        return asdict(self) | {"best": str(self.best)}


def train(
    spec: ModelSpec,
    recipe: TrainSpec,
    folder: Path,
    resume: bool,
    progress: Progress,
    start: Start | None = None,
    together: Alone | None = None,
    logs: Sequence[str] = (),
) -> Trained:
    """Trains a CCT by ``recipe`` into the run directory ``folder``.

    Args:
        spec: the architecture; ``classes`` and ``labels`` are replaced by what the data has.
        recipe: how to train.
        folder: the run directory, made if missing.
        resume: go on from the last finished epoch of a run in ``folder``.
        progress: called after every step and at the end of every epoch, see ``Progress``.
        logs: where else the course is logged, see ``training.logs``.
        start: the model whose weights to begin with; it differs from ``spec`` in image size,
            classes and what training alone knows. None for random weights.
        together: the devices and workers that share the batches, by default one device.

    Returns:
        Where the best weights are and their accuracy on the test split.

    Raises:
        InvalidData: the data cannot be used.
        InvalidRequest: the recipe cannot be followed.
        CCTExportError: the folder holds another run.
        OutputError: the folder cannot be written.
    """
    check_logs(logs)
    check_recipe(recipe)
    together = together or Alone()
    together.check(recipe)
    run = RunDirectory(folder)
    together.once(lambda: run.check(resume))
    spec, dataset, images = _read(spec, recipe)
    transfer.check_frozen(recipe.freeze, spec, start)
    origin = None if start is None else start.to_dict()
    marks = fingerprint(dataset)
    if together.workers > 1:
        together.check_same(_asked(spec, recipe, origin, marks))

    with contextlib.ExitStack() as holding:

        def begin() -> bytes:
            holding.enter_context(run.held())
            kept = run.read_state() if resume else b""
            run.begin(spec, recipe, resume, origin, marks)
            return kept

        state = together.once(begin)
        watching = []
        if together.chief:
            watching = [Report(progress), *watchers(logs, folder, run.record())]
        history = _learn(run, spec, recipe, start, images, watching, together, state)
        trained = together.once(lambda: _conclude(run, spec, recipe, dataset, history))
    return Trained.of(json.loads(trained), together.worker)


def _read(spec: ModelSpec, recipe: TrainSpec) -> tuple[ModelSpec, Dataset, Material]:
    """Returns the model for the data, the data, and what is learned from.

    Raises:
        InvalidData: the data cannot be used.
    """
    shape = (spec.image_size, spec.image_size, spec.channels)
    dataset = data.read(recipe.data, shape, recipe.on_corrupt)
    if recipe.on_corrupt == "refuse":
        check_readable(dataset.test)  # after the last epoch would be too late
    if len(dataset.classes) < 2:
        raise InvalidData(f"{recipe.data} has one class only: a classifier needs two or more")
    held_out, kept = _holdout(dataset.train, recipe)
    spec = replace(spec, classes=len(dataset.classes), labels=dataset.classes)
    return _while_training(spec, recipe), dataset, (resident(dataset.train, shape), held_out, kept)


def _asked(
    spec: ModelSpec, recipe: TrainSpec, origin: dict[str, Any] | None, marks: dict[str, int]
) -> bytes:
    """Returns what must be equal on all workers; where data and start lie may differ."""
    asked = recipe.to_dict() | {"data": marks}
    begun = None if origin is None else origin["sha256"]
    return json.dumps([spec.to_dict(), asked, begun], sort_keys=True).encode()


def _learn(
    run: RunDirectory,
    spec: ModelSpec,
    recipe: TrainSpec,
    start: Start | None,
    images: Material,
    watching: list[keras.callbacks.Callback],
    together: Alone,
    state: bytes,
) -> History:
    """Trains until the last epoch or until nothing gets better; returns the course."""
    split, held_out, kept = images
    with together.scope():
        with _precision(recipe.precision):
            cct = _model(spec, recipe, start)
            steps = math.ceil(len(kept) / recipe.batch)
            learner = compiled(cct, recipe, steps, together.learner)
        keeping = checkpoint.without_optimizer(cct)
        history = run.load_state(learner, state)
        if is_over(history, recipe.patience):
            return history
        callbacks = [Guard(run, history), Keeper(run, history, keeping, recipe.patience, together)]
        if recipe.ema:
            callbacks.append(Averages())
        batches = together.batches(*_images(split, kept, spec, recipe), recipe.seed, len(history))
        validation = together.batches(*_images(split, held_out, spec, recipe), None)
        with _reading(batches, validation):
            together.fit(
                learner,
                batches,
                validation,
                initial_epoch=len(history),
                epochs=recipe.epochs,
                callbacks=[*callbacks, *watching],
                shuffle=False,
                verbose=0,
            )
    return history


@contextlib.contextmanager
def _reading(*batches: Batches) -> Iterator[None]:
    """Ends with what made images unreadable, where a framework says so in its own words."""
    try:
        yield
    except CCTExportError:
        raise
    except Exception as error:
        for failure in (one.failure for one in batches):
            if failure is not None:
                raise failure from error
        raise
    finally:
        for one in batches:
            one.close()


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Lets layers that are made meanwhile compute in ``policy``."""
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(usual)


def _model(spec: ModelSpec, recipe: TrainSpec, start: Start | None) -> CCT:
    """Returns the model before its first step."""
    keras.utils.set_random_seed(recipe.seed)
    model = CCT(spec)
    if start is not None:
        for change in transfer.take_over(start.model, model):
            log.info("%s: %s", start.source, change)
        transfer.freeze(model, recipe.freeze)
    return model


def _while_training(spec: ModelSpec, recipe: TrainSpec) -> ModelSpec:
    """Returns ``spec`` with the dropout and stochastic depth of the recipe."""
    if recipe.dropout >= 0:
        spec = replace(spec, dropout=recipe.dropout)
    if recipe.stochastic_depth >= 0:
        spec = replace(spec, stochastic_depth=recipe.stochastic_depth)
    return spec


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


def _images(
    split: Split, rows: np.ndarray, spec: ModelSpec, recipe: TrainSpec
) -> tuple[Split, np.ndarray, int, int]:
    """Returns the first arguments of ``Batches``."""
    return split, rows, spec.classes, recipe.batch


def _conclude(
    run: RunDirectory, spec: ModelSpec, recipe: TrainSpec, dataset: Dataset, history: History
) -> bytes:
    """Measures the best weights on the test split, writes record and card; returns ``Trained``."""
    best = compiled(checkpoint.load(run.best_file), recipe, 1)
    indices = np.arange(len(dataset.test.labels))
    batches = Batches(*_images(dataset.test, indices, spec, recipe), None)
    with _reading(batches):
        measured = best.evaluate(batches, verbose=0, return_dict=True)
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
    return json.dumps(trained.to_dict()).encode()
