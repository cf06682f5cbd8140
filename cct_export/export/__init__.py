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
    _check_finite(loaded)
    _check_pixels(loaded)
    memory.give_back()  # what loading took
    workspace = Workspace(
        loaded,
        data=requests[0].data,
        calibration_samples=requests[0].calibration.samples,
        parity_samples=requests[0].parity_samples,
        progress=progress,
    )
    for number, request in enumerate(requests, start=1):
        file = f"file {number}/{len(requests)}, {request.output.name}" if len(requests) > 1 else ""
        with workspace.stage(file):
            if request.spec.scheme == AUTO:
                yield auto.export(workspace, request)
            else:
                yield placing.write(workspace, candidate.build(workspace, request))


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
