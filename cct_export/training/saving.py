"""Writing the files of an epoch while the next one is trained, and room for them."""

import concurrent.futures
import logging
import shutil
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cct_export.errors import OutputError
from cct_export.files import followed
from cct_export.training.run import RunDirectory, state_variables

log = logging.getLogger(__name__)

# Metrics, curves, diagram, model card.
_SMALL_FILES_BYTES = 10**6
# Names and headers in state.npz and best.keras, for each array.
_HEADER_BYTES = 1000


class BackgroundWriter:
    """Runs one write at a time in a thread; a context, which ends when all is written."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "writer")
        self._pending: concurrent.futures.Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Begins to write when all before is written.

        Raises:
            OutputError: what was begun before could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(write)

    def wait(self) -> None:
        """Waits until all is written.

        Raises:
            OutputError: it could not be written.
        """
        if self._pending is None:
            return
        concurrent.futures.wait([self._pending])
        done, self._pending = self._pending, None
        done.result()

    def __enter__(self) -> "BackgroundWriter":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits; after another error what could not be written is logged."""
        try:
            self._thread.shutdown()
            self.wait()
        except OutputError as unwritten:
            if error is None:
                raise
            log.warning("%s", unwritten)


def on_host(variables: Iterable[Any]) -> list[NDArray[Any]]:
    """Returns copies of variables, which training cannot change."""
    if keras.backend.backend() == "jax":
        import jax

        # All copies from the device at once, not one after another.
        return [np.array(value) for value in jax.device_get([v.value for v in variables])]
    return [np.array(variable) for variable in variables]


def check_room(run: RunDirectory, model: keras.Model, best: keras.Model) -> None:
    """Checks, before the first step, that the run directory has room for state and best weights.

    A file is replaced by a whole one: for a moment there are both.

    Args:
        run: where they will be saved.
        model: with its optimizer, as it is trained.
        best: the model that is saved.

    Raises:
        OutputError: there is not enough.
    """
    state = _bytes([*state_variables(model), *model.optimizer.variables])
    files = (run.state_file, run.best_file)
    present = sum(file.stat().st_size for file in files if file.exists())
    needed = 2 * (state + _bytes(best.variables)) + _SMALL_FILES_BYTES - present
    try:
        free = shutil.disk_usage(followed(run.path)).free
    except OSError:  # a file system that does not tell
        return
    if free < needed:
        raise OutputError(
            f"cannot write {run.path}: state and weights need {needed / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are free: make room, or choose another folder"
        )


def _bytes(variables: list[Any]) -> int:
    return sum(np.asarray(variable).nbytes + _HEADER_BYTES for variable in variables)
