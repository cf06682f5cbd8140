"""The export: one pass from a Keras model to a verified file in its place."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from cct_export import memory
from cct_export.errors import InvalidModel
from cct_export.export import auto, candidate, placing
from cct_export.export.workspace import Workspace
from cct_export.importers.preprocessing import pixels_warning
from cct_export.importers.source import LoadedModel
from cct_export.records import Exported
from cct_export.specs import AUTO, ExportRequest
from cct_export.specs.progress import StatusProgress, no_progress

log = logging.getLogger(__name__)


def export(
    loaded: LoadedModel, requests: Sequence[ExportRequest], progress: StatusProgress = no_progress
) -> Iterator[Exported]:
    """Converts, quantizes, verifies parity, and only then puts each file in its place.

    Args:
        loaded: the model.
        requests: what files to make of it, and where, as ``api.request`` checked them. They have
            one data set and one number of images: the Keras model is run once.
        progress: called with what runs now.

    Yields:
        Each artifact with its parity; see ``Exported``.

    Raises:
        CCTExportError: any of its kinds; then this file was not written or changed.
    """
    workspace = _workspace(loaded, requests[0], progress)
    for number, request in enumerate(requests, start=1):
        file = f"file {number}/{len(requests)}, {request.output.name}" if len(requests) > 1 else ""
        with workspace.stage(file):
            if request.spec.scheme == AUTO:
                yield auto.export(workspace, [request])
            else:
                yield placing.write(workspace, candidate.build(workspace, request))


def export_fastest(
    loaded: LoadedModel, requests: Sequence[ExportRequest], progress: StatusProgress = no_progress
) -> Exported:
    """Tries every scheme in several engines, and writes the fastest file alone.

    Args:
        loaded: the model.
        requests: one for each engine, see ``export``; their scheme is ``AUTO``.
        progress: called with what runs now.

    Raises:
        CCTExportError: any of its kinds; nothing was written or changed.
    """
    return auto.export(_workspace(loaded, requests[0], progress), requests)


def _workspace(loaded: LoadedModel, request: ExportRequest, progress: StatusProgress) -> Workspace:
    """Returns the workspace of a model that can be exported."""
    _check_finite(loaded)
    _check_pixels(loaded)
    memory.give_back()  # what loading took
    return Workspace(
        loaded,
        data=request.data,
        calibration_samples=request.calibration.samples,
        parity_samples=request.parity_samples,
        progress=progress,
    )


def _check_finite(loaded: LoadedModel) -> None:
    """Raises ``InvalidModel`` for a model with weights that are not finite."""
    for weight in loaded.model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InvalidModel(
                f"{loaded.source}: its weight {weight.path} holds NaN or infinity: train it again"
            )


def _check_pixels(loaded: LoadedModel) -> None:
    """Warns of a model that may have been trained with other pixels than its file will take."""
    if loaded.options.normalization is None and (warning := pixels_warning(loaded.model)):
        log.warning("%s: %s", loaded.source, warning)
