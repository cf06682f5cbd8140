"""What quantization does to a model, as one record."""

import tempfile
from pathlib import Path

from cct_export.data import sampling
from cct_export.errors import InvalidRequest
from cct_export.evaluation.parity import logits_sqnr_db
from cct_export.export.draft import draft
from cct_export.export.sensitivity import Progress, errors, logits
from cct_export.graph.quantized import QuantizedPlan
from cct_export.importers import LoadedModel, open_dataset
from cct_export.model.checkpoint import image_shape
from cct_export.quantize.schemes import scheme
from cct_export.records import QuantizationReport
from cct_export.runtimes import onnxruntime_profile
from cct_export.specs import CalibrationSpec, ExportSpec


def report(
    loaded: LoadedModel,
    spec: ExportSpec,
    data_name: str | None,
    calibration: CalibrationSpec,
    samples: int,
    sensitivity: bool,
    progress: Progress,
) -> QuantizationReport:
    """Quantizes a model and says where the noise comes from.

    Args:
        loaded: a CCT.
        spec: format and scheme.
        data_name: what ``--data`` says.
        calibration: how integers are chosen.
        samples: test images to compare on.
        sensitivity: also quantize each step alone, and all but each.
        progress: called with the number of steps done and of all.

    Raises:
        InvalidRequest: the model is no CCT, or the scheme leaves nothing to report.
        CCTExportError: any reason that an export has.
    """
    chosen = scheme(spec.scheme, spec.format)
    if not chosen.rounds:
        raise InvalidRequest(f"{chosen.name} has no integers: there is nothing to report")
    dataset, shape = open_dataset(loaded, data_name), image_shape(loaded.model)
    started = draft(loaded, spec, chosen, dataset, calibration.samples)
    if started is None:
        raise InvalidRequest(f"{loaded.source} is no CCT: its steps cannot be told apart")
    quantized = started.quantized(calibration)
    judges = sampling.parity(dataset, shape, samples)
    wanted = logits(QuantizedPlan(started.plan), judges.images)
    kernels: dict[str, int] = {}
    if spec.format == "onnx":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "quantized.onnx")
            path.write_bytes(started.file(quantized))
            kernels = onnxruntime_profile.kernels(path)
    return QuantizationReport(
        model=loaded.source,
        format=spec.format,
        scheme=spec.scheme,
        calibration=started.origin,
        images=judges.origin,
        sqnr_db=logits_sqnr_db(wanted, logits(quantized, judges.images)),
        steps=tuple(errors(started, quantized, judges.images, sensitivity, progress)),
        kernels=kernels,
    )
