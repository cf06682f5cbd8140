"""The export: one pass from a Keras model to a verified file in its place."""

import numpy as np

from cct_export.errors import InvalidModel
from cct_export.export import auto, candidate
from cct_export.export.workspace import Workspace
from cct_export.importers.source import LoadedModel
from cct_export.records import Exported
from cct_export.specs import AUTO, ExportRequest


def export(loaded: LoadedModel, request: ExportRequest) -> Exported:
    """Converts, quantizes, verifies parity, and only then puts the file in its place.

    Args:
        loaded: the model.
        request: what file to make of it, and where, as ``api.request`` checked it.

    Returns:
        The artifact and its parity; see ``Exported``.

    Raises:
        CCTExportError: any of its kinds; then no file was written or changed.
    """
    _check_finite(loaded)
    workspace = Workspace(
        loaded,
        data=request.data,
        calibration_samples=request.calibration.samples,
        parity_samples=request.parity_samples,
    )
    if request.spec.scheme == AUTO:
        return auto.export(workspace, request)
    return candidate.write(workspace, candidate.build(workspace, request))


def _check_finite(loaded: LoadedModel) -> None:
    """Raises ``InvalidModel`` for a model with weights that are not finite."""
    for weight in loaded.model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InvalidModel(
                f"{loaded.source}: its weight {weight.path} holds NaN or infinity: train it again"
            )
