"""The run directory: its record, the training state to resume from, and the metrics."""

import contextlib
import csv
import io
import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cct_export.errors import CCTExportError, InvalidModel, InvalidRequest, OutputError
from cct_export.files import (
    check_writable,
    followed,
    remove_leftovers,
    replacing,
    write_text,
)
from cct_export.records.encoding import from_json, parse_json, to_builtins, to_text
from cct_export.records.machine import Count, Share
from cct_export.specs import ModelSpec, TrainSpec
from cct_export.untrusted import read_npz, refusing

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

# Values of the variables of a model, and of its optimizer.
StateVariables: TypeAlias = tuple[Sequence[NDArray[Any]], Sequence[NDArray[Any]]]
# Metrics of an epoch by name: epoch, and these.
# Whole numbers stay whole: a resumed run writes the same bytes.
EpochMetrics = dict[str, int | float]
METRICS = (
    "loss", "accuracy", "top5", "val_loss", "val_accuracy", "val_top5", "learning_rate",
)  # fmt: skip


@dataclass(frozen=True)
class WeightsSource:
    """Where pretrained weights are from.

    Attributes:
        source: the MODEL that the user named.
        sha256: checksum of the file that holds the weights.
    """

    source: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.source} ({self.sha256[:12]})"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the test split.

    Attributes:
        top1: 0 to 1.
        top5: 0 to 1.
        samples: number of images.
    """

    top1: Share
    top5: Share
    samples: Count


@dataclass(frozen=True)
class RunRecord:
    """The content of ``run.json``. A record of an older version lacks some fields.

    Attributes:
        train: data and hyperparameters.
        model: the architecture.
        start: pretrained weights that the run fine-tunes; None for random initialization.
        teacher: the classifier whose answers it learns; None for none.
        backend: of Keras.
        data: fingerprint of the data, see ``data.fingerprint``.
        validation_top1: of the best epoch, 0 to 1; None until the run is finished.
        test: of the best epoch; None until the run is finished.
        test_jpeg: of the same weights on the same images after JPEG compression, see
            ``data.recompressed``; None where images have neither 1 nor 3 channels.
        environment: versions of Python and the libraries; None until the run is finished.
    """

    train: TrainSpec
    model: ModelSpec
    start: WeightsSource | None = None
    teacher: WeightsSource | None = None
    backend: str | None = None
    data: dict[str, int] | None = None
    validation_top1: Share | None = None
    test: Accuracy | None = None
    test_jpeg: Accuracy | None = None
    environment: dict[str, str] | None = None

    def to_json(self) -> str:
        """Returns the record as indented JSON, without the fields that are None."""
        fields: dict[str, object] = to_builtins(self)
        return to_text({name: value for name, value in fields.items() if value is not None})


def shortest(value: Any) -> float:
    """Returns a float32 as the number with the fewest digits, such as 0.002.

    As a float64 the same number is 0.0020000000949949026.
    """
    return float(str(np.float32(value)))


class RunDirectory:
    """The files of one training run.

    ``run.json`` is the record, ``best.keras`` has the weights of the best epoch, ``state.npz`` the
    state to resume from, ``metrics.csv`` and ``curves.png`` the metrics of every epoch,
    ``calibration.npz`` the calibration statistics of the training images, ``README.md`` is the
    model card and ``model.png`` its architecture diagram.

    Args:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "run.json"
        self.state_file = path / "state.npz"
        self.best_file = path / "best.keras"
        self.metrics_file = path / "metrics.csv"
        self.curves_file = path / "curves.png"
        self.diagram_file = path / "model.png"
        self.calibration_file = path / "calibration.npz"
        self.card_file = path / "README.md"
        self.lock_file = path / ".lock"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def files(self) -> list[Path]:
        """Returns those of these files that were written, the ones to look at first."""
        files = (self.card_file, self.best_file, self.metrics_file, self.curves_file,
                 self.diagram_file, self.calibration_file, self.record_file,
                 self.state_file)  # fmt: skip
        return [file for file in files if file.exists()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training into the directory, which is made if missing.

        Removes the temporary files of a process that was killed.

        Raises:
            CCTExportError: another process holds the lock.
            OutputError: the directory cannot be written.
        """
        check_writable(self.record_file)
        try:
            followed(self.path).mkdir(parents=True, exist_ok=True)
            file = self.lock_file.open("a")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        with file:
            self._lock(file)
            if self.record_file.exists():
                for suffix in (".npz", ".keras", ".png", ".csv"):
                    # Nobody else writes such files here: they need not be old. Earlier versions
                    # named them without that of the package.
                    remove_leftovers(self.path, pattern=f".tmp-*{suffix}", age_s=0)
            yield

    def _lock(self, file: IO[str]) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CCTExportError(
                f"another process trains into {self.path}: wait for it, or choose another folder"
            ) from None
        except OSError as error:  # a file system without locks
            log.warning(
                "%s cannot be locked (%s): let no other process train into it",
                self.path, error.strerror,
            )  # fmt: skip

    def begin(self, record: RunRecord, resume: bool) -> None:
        """Writes the record of a new run, or checks that a resumed run has the same.

        Args:
            record: of the run, without its results.
            resume: continue the run in the directory.

        Raises:
            CCTExportError: there is a run and ``resume`` is false; there is none and ``resume`` is
                true; or the two records differ (more epochs are allowed with a constant learning
                rate, after the same warm-up).
            OutputError: the directory cannot be written.
        """
        self.check(resume)
        if resume:
            self.check_same(record)
        write_text(self.record_file, record.to_json())

    def check(self, resume: bool) -> None:
        """Checks, before any work, that a run can be started or resumed in the directory.

        Raises:
            CCTExportError: see ``begin``.
        """
        if resume:
            self.record()
        elif self.best_file.exists() or self.state_file.exists():
            raise CCTExportError(
                f"{self.path} already holds a run: add --resume to go on, or choose another folder"
            )
        elif self.record_file.exists():
            self.record()
        else:
            for file in (self.metrics_file, self.curves_file, self.diagram_file,
                         self.calibration_file, self.card_file):  # fmt: skip
                if file.exists():
                    raise CCTExportError(
                        f"{self.path} is not a run directory and holds a {file.name}, which the "
                        "run would overwrite: choose another folder"
                    )

    def check_same(self, record: RunRecord) -> None:
        """Checks that the run in the directory would go on as it was started, see ``begin``.

        Args:
            record: of the run to resume, without its results.

        Raises:
            CCTExportError: its options, start, teacher, backend or data are others.
        """
        earlier = self.record()
        for before, now, what, without, option in (
            (earlier.start, record.start, "from", "random weights", "--from"),
            (earlier.teacher, record.teacher, "with the teacher", "none", "--teacher"),
        ):
            if (before and before.sha256) != (now and now.sha256):
                raise CCTExportError(
                    f"{self.path} was started {what} {before or without}, not {now or without}: "
                    f"resume {'with the same' if before else 'without'} {option}"
                )
        for part in ("train", "model"):
            before = getattr(earlier, part).to_dict()
            for name, value in getattr(record, part).to_dict().items():
                extended = (
                    name == "epochs"
                    and value >= before[name]
                    and record.train.schedule == "constant"
                    and record.train.warmup_epochs == earlier.train.warmup_epochs
                )
                if value != before[name] and not extended:
                    raise CCTExportError(
                        f"{self.path} was started with {part} {name} {before[name]!r}, "
                        f"not {value!r}: resume with the same options"
                    )
        self._check_environment(earlier, record)

    def _check_environment(self, earlier: RunRecord, record: RunRecord) -> None:
        """Raises ``CCTExportError`` if backend or data differ; older records have neither."""
        if earlier.backend is not None and earlier.backend != record.backend:
            raise CCTExportError(
                f"{self.path} was started on {earlier.backend}, results on {record.backend} would "
                f"differ: resume with KERAS_BACKEND={shlex.quote(earlier.backend)}"
            )
        if earlier.data is None or record.data is None:
            return
        changed = [key for key, value in record.data.items() if earlier.data.get(key) != value]
        if changed:
            raise CCTExportError(
                f"{record.train.data} is not the data that {self.path} was started with: other "
                f"{', '.join(changed)}: resume with the same data"
            )

    def record(self) -> RunRecord:
        """Returns the content of ``run.json``.

        Raises:
            InvalidRequest: there is none.
            InvalidModel: it cannot be read, or is another program's.
        """
        try:
            return from_json(parse_json(self.record_file.read_bytes()), RunRecord)
        except FileNotFoundError:
            raise InvalidRequest(f"{self.path} is not a run directory: no run.json in it") from None
        except OSError as error:
            raise InvalidModel(f"{self.record_file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InvalidModel(
                f"{self.record_file} is not the record of a training run: {error}"
            ) from error

    def add_results(
        self,
        validation_top1: float,
        test: Accuracy,
        test_jpeg: Accuracy | None,
        environment: dict[str, str],
    ) -> RunRecord:
        """Adds the results of a finished run to ``run.json``; returns the whole record."""
        record = replace(
            self.record(),
            validation_top1=validation_top1,
            test=test,
            test_jpeg=test_jpeg,
            environment=environment,
        )
        write_text(self.record_file, record.to_json())
        return record

    def save_state(self, variables: StateVariables, metrics: list[EpochMetrics]) -> None:
        """Writes weights, optimizer, random states and metrics into one file.

        Args:
            variables: values of those of the model, and of its optimizer.
            metrics: of the finished epochs.
        """
        model, optimizer = variables
        arrays = {f"model_{i}": value for i, value in enumerate(model)}
        arrays |= {f"optimizer_{i}": value for i, value in enumerate(optimizer)}
        with replacing(self.state_file) as temporary:
            np.savez(temporary, **arrays, history=np.asarray(json.dumps(metrics)))  # type: ignore[arg-type]

    def read_state(self) -> bytes:
        """Returns the content of the saved state, empty if there is none.

        Raises:
            InvalidModel: the file is empty.
        """
        if not self.state_file.exists():
            return b""
        content = self.state_file.read_bytes()
        if not content:
            raise InvalidModel(f"{self.state_file} is damaged (empty): train into another folder")
        return content

    def load_state(self, model: "keras.Model", content: bytes) -> list[EpochMetrics]:
        """Restores a saved state into ``model`` and returns the metrics of the finished epochs.

        Args:
            model: compiled, as it was saved.
            content: from ``read_state``, maybe of another worker; empty for a new run.

        Raises:
            InvalidModel: the state is damaged.
        """
        model.optimizer.build(model.trainable_variables)
        if not content:
            return []
        what = f"{self.state_file} is damaged, train into another folder"
        with refusing(InvalidModel, what, otherwise="another program changed it"):
            state = read_npz(content)
            for prefix, variables in (
                ("model", state_variables(model)),
                ("optimizer", model.optimizer.variables),
            ):
                count = sum(name.startswith(prefix) for name in state)
                if count and count != len(variables):
                    raise InvalidModel(
                        f"{self.state_file} is another version's ({prefix}: {count} variables, "
                        f"not {len(variables)}): train into another folder"
                    )
                for index, variable in enumerate(variables):
                    variable.assign(state[f"{prefix}_{index}"])
            return from_json(json.loads(str(state["history"])), list[EpochMetrics])

    def write_metrics(self, metrics: list[EpochMetrics]) -> None:
        """Writes ``metrics.csv``, a line per epoch."""
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(metrics[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(metrics)
        write_text(self.metrics_file, table.getvalue())


def state_variables(model: "keras.Model") -> list[Any]:
    """Returns what training changes: all variables but those of a teacher."""
    teacher = getattr(model, "teacher", None)
    frozen = set(map(id, teacher.variables if teacher else ()))
    return [variable for variable in model.variables if id(variable) not in frozen]
