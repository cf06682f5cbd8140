"""The run directory: what was asked, how it went, and all that is needed to go on."""

import contextlib
import csv
import io
import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

from cct_export.errors import CCTExportError, InvalidModel, OutputError
from cct_export.files import TEMPORARY, check_writable, replacing, write_text
from cct_export.specs import ModelSpec, TrainSpec

log = logging.getLogger(__name__)

History = list[dict[str, float]]


def _named(start: dict[str, Any] | None) -> str:
    """Returns a start for people."""
    return "random weights" if start is None else f"{start['source']} ({start['sha256'][:12]})"


class RunDirectory:
    """The files of one training run.

    ``run.json`` says what was asked and reached, ``best.keras`` has the best weights,
    ``state.npz`` all that is needed to go on, ``metrics.csv`` and ``curves.png`` the course,
    ``calibration.npz`` what an export needs to know of the training images, ``README.md`` is the
    model card and ``model.png`` its diagram.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "run.json"
        self.state_file = path / "state.npz"
        self.best_file = path / "best.keras"
        self.metrics_file = path / "metrics.csv"
        self.curves_file = path / "curves.png"
        self.calibration_file = path / "calibration.npz"
        self.card_file = path / "README.md"
        self.lock_file = path / ".lock"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training into the folder meanwhile, which is made if missing.

        What a process that was killed left half written is removed.

        Raises:
            CCTExportError: another process does.
            OutputError: the folder cannot be written.
        """
        check_writable(self.record_file)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self.lock_file.open("a")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        with lock:
            self._lock(lock)
            if self.record_file.exists():
                for name in (self.state_file, self.best_file):
                    for left in self.path.glob(f"{TEMPORARY}*{name.suffix}"):
                        with contextlib.suppress(OSError):
                            left.unlink()
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

    def begin(
        self,
        model: ModelSpec,
        train: TrainSpec,
        resume: bool,
        start: dict[str, Any] | None = None,
        data: dict[str, int] | None = None,
    ) -> None:
        """Writes what is asked, or checks that it is what an earlier run here asked.

        Args:
            model: the architecture.
            train: the recipe.
            resume: go on with the run that is here.
            start: ``source`` and ``sha256`` of the weights to begin with, None for random ones.
            data: by what its data is known again, see ``data.fingerprint``.

        Raises:
            CCTExportError: a run with an epoch is here and ``resume`` is false, none is here and
                it is true, or the two ask for different things (more epochs are welcome where the
                learning rate does not depend on them).
            OutputError: the folder cannot be written.
        """
        # The recipe first: what it says of the model is no word of the user's.
        asked = {"train": train.to_dict(), "model": model.to_dict()}
        where = {"backend": keras.backend.backend()} | ({} if data is None else {"data": data})
        self.check(resume)
        if resume:
            self._check_same(asked, start)
            self._check_place(train, where)
        record = asked | ({} if start is None else {"start": start}) | where
        write_text(self.record_file, json.dumps(record, indent=2) + "\n")

    def check(self, resume: bool) -> bytes:
        """Looks, before any work, whether a run can be begun here, or gone on with.

        Returns:
            Nothing.

        Raises:
            CCTExportError: as of ``begin``.
        """
        if resume:
            self.record()
        elif self.best_file.exists() or self.state_file.exists():
            raise CCTExportError(
                f"{self.path} already holds a run: add --resume to go on, or choose another folder"
            )
        return b""

    def _check_same(self, asked: dict[str, dict[str, Any]], start: dict[str, Any] | None) -> None:
        """Raises ``CCTExportError`` if the run that is here asked for something else."""
        before = self.record()
        began = before.get("start")
        if (start or {}).get("sha256") != (began or {}).get("sha256"):
            wanted, given = (_named(one) for one in (began, start))
            raise CCTExportError(
                f"{self.path} was begun from {wanted}, not from {given}: resume with that --from"
            )
        # What an older record lacks is what there was before it could be asked for.
        usual = {"model": ModelSpec().to_dict(), "train": TrainSpec("").to_dict()}
        for part, fields in asked.items():
            for key, value in fields.items():
                earlier = before[part].get(key, usual[part][key])
                longer = key == "epochs" and value >= earlier and fields["schedule"] == "constant"
                if earlier != value and not longer:
                    raise CCTExportError(
                        f"{self.path} was begun with {part} {key} {earlier!r}, "
                        f"not {value!r}: resume with the same options"
                    )

    def _check_place(self, train: TrainSpec, where: dict[str, Any]) -> None:
        """Raises ``CCTExportError`` if the run that is here had other data or another backend.

        A record from before these were entered is taken as it is.
        """
        before = where | {key: value for key, value in self.record().items() if key in where}
        if before["backend"] != where["backend"]:
            raise CCTExportError(
                f"{self.path} was begun on {before['backend']}, {where['backend']} would learn "
                f"something else: resume with KERAS_BACKEND={before['backend']}"
            )
        known = before.get("data", {})
        other = [key for key, value in where.get("data", {}).items() if known.get(key) != value]
        if other:
            raise CCTExportError(
                f"{train.data} is not what {self.path} was begun with: other {', '.join(other)}: "
                "resume with the data of then"
            )

    def record(self) -> dict[str, Any]:
        """Returns the content of ``run.json``.

        Raises:
            InvalidModel: there is none, or it is not readable or another program's.
        """
        try:
            record: dict[str, Any] = json.loads(self.record_file.read_text())
        except FileNotFoundError:
            raise InvalidModel(f"{self.path} is not a run directory: no run.json in it") from None
        except (OSError, ValueError) as error:
            raise InvalidModel(f"{self.record_file} cannot be read: {error}") from error
        try:
            known = isinstance(record["train"]["data"], str) and isinstance(record["model"], dict)
        except (TypeError, KeyError):
            known = False
        if not known:
            raise InvalidModel(f"{self.record_file} is not the record of a training run")
        return record

    def add_to_record(self, **entries: Any) -> None:
        """Adds entries to ``run.json``."""
        write_text(self.record_file, json.dumps(self.record() | entries, indent=2) + "\n")

    def save_state(self, model: keras.Model, history: History) -> None:
        """Writes weights, optimizer, random states and history in one step."""
        arrays = {f"model_{i}": np.asarray(v) for i, v in enumerate(model.variables)}
        arrays |= {f"optimizer_{i}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
        with replacing(self.state_file) as temporary:
            np.savez(temporary, **arrays, history=np.asarray(json.dumps(history)))  # type: ignore[arg-type]

    def read_state(self) -> bytes:
        """Returns the content of the saved state, nothing if there is none.

        Raises:
            InvalidModel: there is one with nothing in it.
        """
        if not self.state_file.exists():
            return b""
        content = self.state_file.read_bytes()
        if not content:
            raise InvalidModel(f"{self.state_file} is damaged (empty): train into another folder")
        return content

    def load_state(self, model: keras.Model, content: bytes | None = None) -> History:
        """Puts a saved state into ``model`` and returns the history so far (empty if none).

        Args:
            model: what was saved.
            content: as ``read_state`` returned it, maybe elsewhere; by default what is here.

        Raises:
            InvalidModel: the state is damaged.
        """
        content = self.read_state() if content is None else content
        model.optimizer.build(model.trainable_variables)
        if not content:
            return []
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as state:
                for prefix, owner in (("model", model), ("optimizer", model.optimizer)):
                    kept = sum(name.startswith(prefix) for name in state)
                    if kept and kept != len(owner.variables):
                        raise InvalidModel(
                            f"{self.state_file} is another version's ({prefix}: {kept} variables, "
                            f"not {len(owner.variables)}): train into another folder"
                        )
                    for index, variable in enumerate(owner.variables):
                        variable.assign(state[f"{prefix}_{index}"])
                history: History = json.loads(str(state["history"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InvalidModel(
                f"{self.state_file} is damaged ({error}): train into another folder"
            ) from error
        return history

    def write_metrics(self, history: History) -> None:
        """Writes one CSV line per epoch."""
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.metrics_file, table.getvalue())
