"""The Python API: what the commands call, with files and frozen records in and out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.specs import TrainSpec

if TYPE_CHECKING:
    from cct_export.training.loop import Trained


def _ignore(epoch: int, step: int, metrics: dict[str, float]) -> None:
    """Default progress: none."""


def train(
    folder: str | Path,
    recipe: TrainSpec,
    model: str = "cct_keras_io",
    resume: bool = False,
    progress: Callable[[int, int, dict[str, float]], None] = _ignore,
) -> "Trained":
    """Trains a preset into the run directory ``folder``.

    Args:
        folder: run directory, made if missing.
        recipe: data, epochs, seed and hyperparameters.
        model: name of a preset.
        resume: go on with the run that is in ``folder``.
        progress: called with epoch, step (0 at the end of an epoch) and metrics.

    Returns:
        The best weights' file and accuracy.

    Raises:
        InvalidModel: unknown preset.
        InvalidData: the data cannot be used.
        CCTExportError: the folder holds another run.
        OutputError: the folder cannot be written.
    """
    from cct_export.model.presets import preset
    from cct_export.training import loop

    return loop.train(preset(model), recipe, Path(folder), resume, progress)
