"""Models to load and to train."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.specs import DEFAULT_MODEL, TrainSpec

if TYPE_CHECKING:
    from typing import TypeAlias

    import keras

    from cct_export.importers import LoadedModel
    from cct_export.training.loop import Trained

    Source: TypeAlias = str | Path | keras.Model | LoadedModel

CALIBRATION_SAMPLES = 200
PARITY_SAMPLES = 1000


def _ignore(epoch: int, step: int, steps: int, metrics: dict[str, float]) -> None:
    """Default progress: none."""


def load(source: "Source" = DEFAULT_MODEL) -> "LoadedModel":
    """Loads a model.

    Args:
        source: a preset with shipped weights, a ``.keras`` file, a run directory, a
            ``.weights.h5`` of the keras.io example, or a Keras model in memory.

    Returns:
        The Keras model (``.model``) and where it is from.

    Raises:
        InvalidModel: not readable, unsafe, or no image classifier.
    """
    from cct_export.importers import LoadedModel, in_memory, load_model

    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, str | Path):
        return load_model(str(source))
    return in_memory(source)


def train(
    folder: str | Path,
    recipe: TrainSpec,
    model: str = DEFAULT_MODEL,
    resume: bool = False,
    progress: Callable[[int, int, int, dict[str, float]], None] = _ignore,
) -> "Trained":
    """Trains a preset into the run directory ``folder``.

    Args:
        folder: run directory, made if missing.
        recipe: data, epochs, seed and hyperparameters.
        model: name of a preset.
        resume: go on with the run that is in ``folder``.
        progress: called with epoch, step (0 at the end of an epoch), steps of an epoch, metrics.

    Returns:
        The best weights' file and accuracy.

    Raises:
        InvalidModel: unknown preset.
        InvalidData: the data cannot be used.
        CCTExportError: the folder holds another run.
        OutputError: the folder cannot be written.
    """
    from cct_export import data, draft
    from cct_export.model.checkpoint import image_shape
    from cct_export.model.presets import preset
    from cct_export.training import loop

    trained = loop.train(preset(model), recipe, Path(folder), resume, progress)
    loaded = load(str(folder))
    if loaded.calibration is not None:
        dataset = data.read(recipe.data, image_shape(loaded.model))
        draft.record(loaded, dataset, CALIBRATION_SAMPLES, loaded.calibration)
    return trained
