"""Exporting a model to ncnn."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.export import default_output, export_requests, name_of, output_path
from cct_export.api.request import calibration_spec, export_spec
from cct_export.specs import (
    CALIBRATION_SAMPLES,
    DEFAULT_MODEL,
    NO_OPTIONS,
    PARITY_SAMPLES,
    CalibrationSpec,
    Constraints,
    ExportRequest,
    ModelOptions,
)
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.api.model import Source
    from cct_export.records import Exported


def export_ncnn(
    model: "Source" = DEFAULT_MODEL,
    *,
    output: str | Path | None = None,
    scheme: str = "none",
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    no_fold: str | Sequence[str] = (),
    calibrate: str = CalibrationSpec.default_method,
    rounding: str = CalibrationSpec.rounding,
    min_sqnr: float | None = None,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "Exported":
    """Writes the files of an ncnn model and verifies its numerical parity with the Keras model.

    Args:
        model: a model whose steps are known, as those of any CCT are: a preset with shipped
            weights, a ``.keras`` file, a run directory, a Keras model in memory, or anything that
            ``import_model`` takes.
        output: file to write, whose name ends in ``.ncnn.param``, or an existing folder, or one to
            make whose name ends in ``/``; by default a file in the working directory, named after
            model and scheme. The weights go beside it, into a file that ends in ``.ncnn.bin``.
        scheme: quantization scheme: ``none``, ``fp16`` for weights of half the size, or ``int8``.
        data: images for calibration and parity: a name, folder or ``.npz``; without it those of
            the run directory, else the model's calibration record and photo crops.
        calibration_samples: training images to calibrate with.
        parity_samples: test images to verify parity on.
        no_fold: names of folds to leave out, of ``cct_export.graph.fold.PASSES``.
        calibrate: how the range of a tensor follows from its values, see ``export_tflite``.
        rounding: of weights, see there.
        min_sqnr: lowest SQNR of the logits in dB; the steps with the largest error stay in float
            until it holds.
        options: what the model's file does not say, see ``export_tflite``.
        progress: called with what runs now.

    Returns:
        The artifact and its parity report. If parity failed, the names of both files end in
        ``.rejected``, and files that were there before are untouched.

    Raises:
        ConversionError: ncnn has no layer for some steps of the model.
        CCTExportError: any of its kinds; nothing was written.

    Example:
        >>> exported = cct_export.export_ncnn("model.keras", scheme="fp16")
        >>> exported.artifact.path
        PosixPath('model-fp16.ncnn.param')
    """
    spec = export_spec("ncnn", scheme, no_fold=no_fold)
    path = output_path(output, default_output(name_of(model), spec))
    calibration = calibration_spec(calibration_samples, calibrate, rounding)
    request = ExportRequest(spec, path, data, calibration, Constraints(min_sqnr), parity_samples)
    (exported,) = export_requests(model, [request], progress, options)
    return exported
