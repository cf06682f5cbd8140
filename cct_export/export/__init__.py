"""The export: one pass from a Keras model to a verified file in its place."""

import numpy as np

from cct_export.errors import InvalidModel, InvalidRequest, OutputError
from cct_export.export import auto, candidate
from cct_export.export.workspace import Workspace
from cct_export.files import check_writable
from cct_export.importers import LoadedModel
from cct_export.records import Exported
from cct_export.runtimes import engine_of
from cct_export.specs import AUTO, ExportRequest


def export(loaded: LoadedModel, request: ExportRequest) -> Exported:
    """Converts, quantizes, verifies parity, and only then puts the file in its place.

    Args:
        loaded: the model.
        request: what file to make of it, and where.

    Returns:
        The artifact and its parity; see ``Exported``.

    Raises:
        CCTExportError: any of its kinds; then no file was written or changed.
    """
    _check(loaded, request)
    workspace = Workspace(
        loaded,
        data=request.data,
        calibration_samples=request.calibration.samples,
        parity_samples=request.parity_samples,
    )
    if request.spec.scheme == AUTO:
        return auto.export(workspace, request)
    return candidate.write(workspace, candidate.build(workspace, request))


def _check(loaded: LoadedModel, request: ExportRequest) -> None:
    """Refuses, before any work, what would fail after it."""
    spec, output = request.spec, request.output
    if request.constraints.max_drop is not None and spec.scheme != AUTO:
        raise InvalidRequest("--max-drop is for --quantize auto, which chooses by it")
    if output.suffix != f".{spec.format}":
        raise OutputError(f"cannot write {output}: choose a name that ends in .{spec.format}")
    check_writable(output)
    engine_of(spec.format).import_engine()
    for weight in loaded.model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InvalidModel(
                f"{loaded.source}: its weight {weight.path} holds NaN or infinity: train it again"
            )
