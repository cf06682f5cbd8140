"""From a Keras model to a file that has been proven equal to it, or to none."""

import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cct_export import machine
from cct_export.data import sampling
from cct_export.errors import (
    ConversionError,
    InvalidArtifact,
    InvalidModel,
    InvalidRequest,
    OutputError,
)
from cct_export.evaluation import parity
from cct_export.export.draft import Draft, draft, traced
from cct_export.files import check_writable, replacing, write_bytes
from cct_export.formats import onnx_file, tflite_file
from cct_export.importers import LoadedModel, open_dataset
from cct_export.model.checkpoint import image_shape, labels
from cct_export.quantize.schemes import scheme
from cct_export.records import Artifact, ParityReport, sidecar
from cct_export.records.encoding import plain
from cct_export.runtimes import engine_of, session
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import Logits
from cct_export.specs import CalibrationSpec, ExportSpec, QuantScheme

INPUTS = {"tflite": ("float32", "uint8", "int8"), "onnx": ("float32", "uint8")}
_FINISH = {"tflite": tflite_file.finish, "onnx": onnx_file.finish}
_LIBRARIES = (
    "keras",
    "tensorflow",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "numpy",
)


@dataclass(frozen=True)
class Exported:
    """An export's outcome.

    Attributes:
        artifact: the file; its name ends in ``.rejected`` if parity failed.
        parity: how close it is to the Keras model.
        tuning: what was found out before it was written; empty if nothing was asked.
    """

    artifact: Artifact
    parity: ParityReport
    tuning: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        parts = {"artifact": self.artifact.to_dict(), "parity": self.parity.to_dict()}
        return parts | ({"tuning": plain(self.tuning)} if self.tuning else {})


def export(
    loaded: LoadedModel,
    spec: ExportSpec,
    output: Path,
    data_name: str | None,
    calibration: CalibrationSpec,
    parity_samples: int,
    min_sqnr_db: float | None = None,
) -> Exported:
    """Converts, quantizes, checks parity, and only then puts the file in its place.

    Args:
        loaded: the model.
        spec: what to make of it.
        output: the file to write; the sidecar goes beside it.
        data_name: what ``--data`` says; by default what the run was trained on, where that is
            still there, else the model's calibration record and photo crops serve.
        calibration: how integers are chosen.
        parity_samples: test images that prove parity.
        min_sqnr_db: signal to noise ratio of the logits at least, beside what the scheme demands.

    Raises:
        CCTExportError: any of its kinds; then no file was written or changed.
    """
    chosen = scheme(spec.scheme, spec.format)
    check(spec, chosen)
    shape = image_shape(loaded.model)
    _check_output(output, spec.format)
    engine_of(spec.format).import_engine()  # what is missing is said before the work is done
    _check_weights(loaded)
    dataset = open_dataset(loaded, data_name)
    begun = draft(loaded, spec, chosen, dataset, calibration.samples)
    if begun is None:
        images = None
        if chosen.calibrated:
            images = sampling.calibration(dataset, shape, calibration.samples)
        content = traced(loaded, spec, chosen, images)
        artifact = _artifact(loaded, spec, output, images.origin if images else "", {})
    else:
        content = begun.file(begun.quantized(calibration))
        artifact = _artifact(loaded, spec, output, begun.origin, _account(begun, calibration))
    content = _FINISH[spec.format](content, spec.io, artifact.contract())
    judges = sampling.parity(dataset, shape, parity_samples)
    return _prove(loaded, artifact, content, judges, min_sqnr_db)


def _check_weights(loaded: LoadedModel) -> None:
    for weight in loaded.model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InvalidModel(
                f"{loaded.source}: its weight {weight.path} holds NaN or infinity: train it again"
            )


def check(spec: ExportSpec, chosen: QuantScheme) -> None:
    """Refuses an input type that the format or the scheme does not have.

    Raises:
        InvalidRequest: the message says which there are.
    """
    choices: tuple[str, ...] = INPUTS[spec.format]
    if chosen.integers_only and chosen.bits == 8:
        choices = choices[1:]
    if spec.io not in choices:
        what = f"{spec.format} {chosen.name}" if spec.io in INPUTS[spec.format] else spec.format
        raise InvalidRequest(
            f"{what} takes no {spec.io!r} images: choose from {', '.join(choices)}"
        )


def _account(begun: Draft, calibration: CalibrationSpec) -> dict[str, Any]:
    """Returns what the file says about its quantization; empty where nothing is quantized."""
    if begun.statistics is None:
        return {}
    methods = calibration.methods
    return {
        "rounding": calibration.rounding,
        "ranges": methods if isinstance(methods, str) else dict(methods),
        **begun.modes(calibration.floats),
        "kept_float": list(calibration.floats),
    }


def _artifact(
    loaded: LoadedModel,
    spec: ExportSpec,
    output: Path,
    calibration: str,
    quantization: dict[str, Any],
) -> Artifact:
    """Returns the record of the file to be, size and checksum left open."""
    return Artifact(
        path=output,
        format=spec.format,
        scheme=spec.scheme,
        io=spec.io,
        source=loaded.source,
        source_sha256=loaded.sha256,
        image_shape=image_shape(loaded.model),
        batch=None if spec.dynamic_batch else 1,
        classes=int(loaded.model.outputs[0].shape[1]),
        labels=labels(loaded.model),
        calibration=calibration,
        versions=machine.versions(*_LIBRARIES),
        quantization=quantization,
    )


def _prove(
    loaded: LoadedModel,
    artifact: Artifact,
    content: bytes,
    images: sampling.Samples,
    min_sqnr_db: float | None,
) -> Exported:
    """Runs ``content`` against the model and writes it, under its name or as rejected."""
    artifact = replace(
        artifact, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    reference = session.run(KerasSession(loaded.model), images.images)
    candidate = _run_bytes(content, artifact, images)
    report = parity.compare(
        reference,
        candidate,
        artifact.scheme,
        names=(loaded.source, str(artifact.path)),
        images=images.origin,
    )
    if min_sqnr_db is not None and not report.sqnr_db >= min_sqnr_db:
        missed = f"SQNR {report.sqnr_db:.1f} dB is below the {min_sqnr_db:g} dB asked for"
        report = replace(report, failures=(*report.failures, missed))
    if not report.passed:
        artifact = replace(artifact, path=rejected_path(artifact.path))
        write_bytes(artifact.path, content)
        return Exported(artifact, report)
    # Spread over the pick: a folder's images come class by class.
    count = min(sidecar.GOLDEN_IMAGES, len(reference))
    rows = np.linspace(0, len(reference) - 1, count, dtype=int)
    golden = sidecar.Golden(images.images[rows], reference[rows], images.origin)
    # Both are on the disk before either gets its name; the sidecar gets it first.
    with replacing(artifact.path) as temporary:
        temporary.write_bytes(content)
        sidecar.write(artifact, golden)
    rejected_path(artifact.path).unlink(missing_ok=True)
    return Exported(artifact, report)


def _run_bytes(content: bytes, artifact: Artifact, images: sampling.Samples) -> Logits:
    # Engines check less of integers, and may end the process that gives them a number too large.
    trusted = not scheme(artifact.scheme, artifact.format).integers_only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"candidate.{artifact.format}")
        path.write_bytes(content)
        try:
            engine = engine_of(artifact.format).open_session(path, trusted=trusted)
        except InvalidArtifact as error:
            reason = str(error).replace(str(path), "the file")
            raise ConversionError(
                f"{artifact.source} as {artifact.format} {artifact.scheme}: {reason}"
            ) from error
        try:
            return session.run(engine, images.images)
        finally:
            engine.close()


def rejected_path(path: Path) -> Path:
    """Returns where a file goes that failed parity: ``m.tflite.rejected`` for ``m.tflite``."""
    return path.with_name(path.name + ".rejected")


def _check_output(output: Path, format: str) -> None:
    """Refuses what would fail after minutes of work."""
    if output.suffix != f".{format}":
        raise OutputError(f"cannot write {output}: the name of a {format} file ends in .{format}")
    check_writable(output)
