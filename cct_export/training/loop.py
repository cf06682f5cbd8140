"""Training a CCT so that a run that is killed and resumed ends with the same result."""

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from cct_export import data
from cct_export.data.dataset import Dataset, fingerprint
from cct_export.data.encoded import check_readable
from cct_export.data.recompressed import JpegSplit
from cct_export.errors import CCTExportError, InvalidData
from cct_export.machine import versions
from cct_export.model import checkpoint
from cct_export.model.cct import CCT
from cct_export.records.encoding import from_json, parse_json, to_text
from cct_export.specs import JSONObject, ModelSpec, TrainSpec
from cct_export.specs.progress import StepProgress, no_progress
from cct_export.training import augmentation, callbacks, card, learner, transfer
from cct_export.training.batches import Batches, Subset, in_memory
from cct_export.training.distribution import one_device
from cct_export.training.distribution_base import Distribution
from cct_export.training.run import Accuracy, EpochMetrics, RunDirectory, RunRecord, shortest
from cct_export.training.saving import BackgroundWriter, check_room
from cct_export.training.teacher import Teacher
from cct_export.training.transfer import Pretrained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """What to train, and where.

    Attributes:
        model: the architecture; its ``classes`` and ``labels`` are replaced by those of the data.
        recipe: data and hyperparameters.
        folder: the run directory, made if missing.
        resume: continue the run in ``folder`` after its last finished epoch.
        pretrained: the model to fine-tune, which differs from ``model`` in image size, classes,
            activation, dropout and stochastic depth only. None for random initialization.
        loggers: experiment trackers to log to, see ``specs.train.LOGGERS``.
        teacher: a classifier whose answers are learned besides the labels; None for none.
    """

    model: ModelSpec
    recipe: TrainSpec
    folder: Path
    resume: bool = False
    pretrained: Pretrained | None = None
    loggers: tuple[str, ...] = ()
    teacher: Teacher | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The images, read once: reading logs what is left out of them.

        Raises:
            InvalidData: they cannot be used.
        """
        recipe = self.recipe
        shape = (self.model.image_size, self.model.image_size, self.model.channels)
        dataset = data.read(recipe.data, shape, recipe.on_corrupt)
        if recipe.on_corrupt == "refuse":
            check_readable(dataset.test)  # Now and not after the last epoch.
        if len(dataset.classes) < 2:
            raise InvalidData(f"{recipe.data} has one class only: a classifier needs two or more")
        return dataset


@dataclass(frozen=True)
class Trained:
    """The result of a run.

    Attributes:
        best: the ``.keras`` file with the weights of the epoch with the best validation accuracy.
        epochs: number of epochs trained.
        validation_top1: of the best epoch, 0 to 1.
        top1: on the test split, 0 to 1.
        top5: on the test split, 0 to 1.
        samples: number of test images.
        jpeg_top1: on the test split after JPEG compression (quality 75, 4:2:0), 0 to 1; None where
            images have neither 1 nor 3 channels.
        worker: index of this worker; worker 0 has the run directory.
    """

    best: Path
    epochs: int
    validation_top1: float
    top1: float
    top5: float
    samples: int
    jpeg_top1: float | None = None
    worker: int = 0

    def to_dict(self) -> JSONObject:
        """Returns the fields as plain JSON types."""
        return asdict(self) | {"best": str(self.best)}


@dataclass(frozen=True)
class _Images:
    """The images of a run: two parts of the training split, and the test split."""

    training: Subset
    validation: Subset
    test: Subset


def train(
    job: TrainingJob, progress: StepProgress = no_progress, distribution: Distribution | None = None
) -> Trained:
    """Trains a CCT into a run directory.

    Args:
        job: what to train.
        progress: called after every step and epoch, see ``StepProgress``.
        distribution: devices and workers to train on; by default one device.

    Returns:
        The file with the best weights, and their accuracy on the test split.

    Raises:
        InvalidData: the data cannot be used.
        InvalidRequest: the recipe cannot be trained.
        CCTExportError: the directory holds another run.
        OutputError: the directory cannot be written.
    """
    distribution = distribution or one_device()
    callbacks.check_loggers(job.loggers)
    learner.check(job.recipe)
    augmentation.check(job.recipe, job.model.channels)
    distribution.check(job.recipe)
    run = RunDirectory(job.folder)
    distribution.on_chief(lambda: run.check(job.resume))
    loop = _prepare(job, run, distribution)
    with contextlib.ExitStack() as stack:
        state = distribution.on_chief(lambda: loop.begin(job.resume, stack))
        if distribution.is_chief:
            metrics = loop.fit(state, callbacks.loggers(job.loggers, run), progress)
        else:
            metrics = loop.fit(state, [], no_progress)
        finished = distribution.on_chief(lambda: loop.finish(metrics))
    record = from_json(parse_json(finished), RunRecord)
    assert record.test is not None and record.validation_top1 is not None
    return Trained(
        run.best_file,
        len(metrics),
        record.validation_top1,
        **asdict(record.test),
        jpeg_top1=record.test_jpeg.top1 if record.test_jpeg else None,
        worker=distribution.worker,
    )


def _prepare(job: TrainingJob, run: RunDirectory, distribution: Distribution) -> "_Loop":
    """Returns the training loop of a job.

    Raises:
        InvalidData: the data cannot be used.
        InvalidRequest: parts cannot be frozen, or the workers have different options.
        CCTExportError: the run to resume has other options.
    """
    record = _record(job)
    if job.resume:  # What the run contradicts is said before what cannot be trained.
        distribution.on_chief(lambda: run.check_same(record))
    pretrained = job.pretrained.model if job.pretrained else None
    transfer.check_frozen(job.recipe.freeze, record.model, pretrained.spec if pretrained else None)
    if job.teacher is not None:
        job.teacher.check(record.model, job.pretrained, job.recipe)
    if distribution.workers > 1:
        distribution.check_same(_comparable(record))
    return _Loop(run, record, _split(job.dataset, record), pretrained, distribution, job.teacher)


def _record(job: TrainingJob) -> RunRecord:
    """Returns the record of a run, with the architecture as it is trained on the data."""
    spec, recipe, dataset = job.model, job.recipe, job.dataset
    spec = replace(spec, classes=len(dataset.classes), labels=dataset.classes)
    if recipe.dropout >= 0:
        spec = replace(spec, dropout=recipe.dropout)
    if recipe.stochastic_depth >= 0:
        spec = replace(spec, stochastic_depth=recipe.stochastic_depth)
    return RunRecord(
        train=recipe,
        model=spec,
        start=job.pretrained.origin if job.pretrained else None,
        teacher=job.teacher.origin if job.teacher else None,
        backend=keras.backend.backend(),
        data=fingerprint(dataset),
    )


def _comparable(record: RunRecord) -> bytes:
    """Returns what must be equal on all workers; the paths of data and weights may differ."""
    train = replace(record.train, data="")
    checksums = [origin and origin.sha256 for origin in (record.start, record.teacher)]
    return to_text([record.model, train, record.data, checksums]).encode()


def _split(dataset: Dataset, record: RunRecord) -> _Images:
    """Returns the images to train, validate and test on.

    Raises:
        InvalidData: there are too few images for a validation split.
    """
    spec = record.model
    validation, training = holdout(len(dataset.train.labels), record.train)
    split = in_memory(dataset.train, (spec.image_size, spec.image_size, spec.channels))
    return _Images(
        training=Subset(split, training, spec.classes),
        validation=Subset(split, validation, spec.classes),
        test=Subset(dataset.test, np.arange(len(dataset.test.labels)), spec.classes),
    )


def holdout(count: int, recipe: TrainSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the training images at random.

    Args:
        count: number of images.
        recipe: its seed determines the split.

    Returns:
        Sorted indices of the validation split and of the rest.

    Raises:
        InvalidData: one of the two would be empty.
    """
    held_out = round(count * recipe.validation)
    if not 0 < held_out < count:
        raise InvalidData(
            f"{count} training images are too few to hold out {recipe.validation:.0%} of them"
        )
    order = np.random.default_rng(recipe.seed).permutation(count)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


@dataclass(frozen=True)
class _Loop:
    """The training loop of a run.

    Attributes:
        run: the run directory.
        record: architecture and hyperparameters.
        images: data.
        pretrained: the model to fine-tune, or None.
        distribution: devices and workers.
        teacher: see ``TrainingJob``.
    """

    run: RunDirectory
    record: RunRecord
    images: _Images
    pretrained: CCT | None
    distribution: Distribution
    teacher: Teacher | None = None

    def begin(self, resume: bool, stack: contextlib.ExitStack) -> bytes:
        """Starts or resumes the run, which is locked as long as ``stack`` is open.

        Returns:
            The saved state to resume from; empty for a new run.
        """
        stack.enter_context(self.run.lock())
        state = self.run.read_state() if resume else b""
        self.run.begin(self.record, resume)
        return state

    def fit(
        self, state: bytes, loggers: list[keras.callbacks.Callback], progress: StepProgress
    ) -> list[EpochMetrics]:
        """Trains until the last epoch or early stopping.

        Args:
            state: saved state to resume from; empty for a new run.
            loggers: callbacks of experiment trackers.
            progress: called after every step and epoch.

        Returns:
            The metrics of every epoch.
        """
        recipe, images, distribution = self.record.train, self.images, self.distribution
        with distribution.scope():
            with _precision(recipe.precision):
                cct = self._model()
                steps = math.ceil(len(images.training.rows) / recipe.batch)
                model = learner.compiled(
                    cct, recipe, steps, distribution.learner_type, self.teacher
                )
            best = checkpoint.without_optimizer(cct)
            metrics = self.run.load_state(model, state)
            if callbacks.should_stop(metrics, recipe.patience):
                return metrics
            distribution.on_chief(lambda: check_room(self.run, model, best))
            batches = distribution.batches(images.training, recipe.batch, recipe.seed, len(metrics))
            validation = distribution.batches(images.validation, recipe.batch, None)
            with BackgroundWriter() as writer, _raising_read_errors(batches, validation):
                saving = callbacks.RunCheckpoint(
                    self.run, metrics, best, recipe.patience, distribution, writer
                )
                report = callbacks.ProgressReport(progress, batches)
                distribution.fit(
                    model,
                    batches,
                    validation,
                    initial_epoch=len(metrics),
                    epochs=recipe.epochs,
                    callbacks=[*self._callbacks(saving, batches), *loggers, report],
                    shuffle=False,
                    verbose=0,
                )
        return metrics

    def finish(self, metrics: list[EpochMetrics]) -> bytes:
        """Evaluates the best weights on the test split, as it is and as JPEG; writes the results.

        Args:
            metrics: of every epoch.

        Returns:
            The record as JSON.
        """
        test = self.images.test
        recipe = replace(self.record.train, quantize="none")  # the weights are a float model's
        best = learner.compiled(checkpoint.load(self.run.best_file), recipe, 1)
        accuracy, jpeg_accuracy = self._accuracy(best, test), None
        if self.record.model.channels in (1, 3):
            jpeg_accuracy = self._accuracy(best, replace(test, split=JpegSplit(test.split)))
        environment = {"backend": keras.backend.backend(), "python": sys.version.split()[0]}
        environment |= versions("keras", "tensorflow", "jax", "numpy")
        validation = max(epoch["val_accuracy"] for epoch in metrics)
        record = self.run.add_results(validation, accuracy, jpeg_accuracy, environment)
        card.write(self.run, metrics)
        return record.to_json().encode()

    def _accuracy(self, model: learner.Learner, images: Subset) -> Accuracy:
        """Returns the accuracy on images, which are read batch by batch."""
        batches = Batches(images, self.record.train.batch, None)
        with _raising_read_errors(batches):
            evaluated = model.evaluate(batches, verbose=0, return_dict=True)
        return Accuracy(
            shortest(evaluated["accuracy"]), shortest(evaluated["top5"]), samples=len(images.rows)
        )

    def _model(self) -> CCT:
        """Returns the model before its first step."""
        keras.utils.set_random_seed(self.record.train.seed)
        model = CCT(self.record.model)
        if self.pretrained is not None:
            assert self.record.start is not None
            for change in transfer.load_pretrained(self.pretrained, model):
                log.info("%s: %s", self.record.start.source, change)
            transfer.freeze(model, self.record.train.freeze)
        return model

    def _callbacks(
        self, saving: callbacks.RunCheckpoint, batches: Batches
    ) -> list[keras.callbacks.Callback]:
        return [
            callbacks.StopOnNaN(self.run, saving.metrics, batches),
            saving,
            *([callbacks.SwapEMAWeights()] if self.record.train.ema else []),
        ]


@contextlib.contextmanager
def _raising_read_errors(*sources: Batches) -> Iterator[None]:
    """Raises the error of an unreadable image, which a framework wraps in an error of its own."""
    try:
        yield
    except CCTExportError:
        raise
    except Exception as error:
        for batches in sources:
            if batches.error is not None:
                raise batches.error from error
        raise
    finally:
        for batches in sources:
            batches.close()


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Sets the dtype policy of layers that are created in the block."""
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)
