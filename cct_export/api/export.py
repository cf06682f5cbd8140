"""Exporting a model, and the error of quantizing it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.model import load, stem_of
from cct_export.api.request import (
    calibration_spec,
    check_data,
    check_export,
    check_model,
    check_quantizes,
    export_spec,
)
from cct_export.errors import CCTExportError, InvalidRequest
from cct_export.names import choose
from cct_export.specs import (
    AUTO,
    CALIBRATION_SAMPLES,
    DEFAULT_MODEL,
    INPUT_TYPES,
    NO_OPTIONS,
    PARITY_SAMPLES,
    SAMPLES,
    SUFFIXES,
    CalibrationSpec,
    Constraints,
    ExportRequest,
    ExportSpec,
    ModelOptions,
)
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.api.model import Source
    from cct_export.records import Exported, QuantizationReport


def export_tflite(
    model: "Source" = DEFAULT_MODEL,
    *,
    output: str | Path | None = None,
    scheme: str = "none",
    io: str | None = None,
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    no_fold: str | Sequence[str] = (),
    calibrate: str = CalibrationSpec.default_method,
    rounding: str = CalibrationSpec.rounding,
    min_sqnr: float | None = None,
    max_drop: float | None = None,
    target: str | None = None,
    optimize: str = ExportSpec.optimize,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "Exported":
    """Writes a ``.tflite`` file and verifies its numerical parity with the Keras model.

    Args:
        model: a preset with shipped weights, a ``.keras`` file, a run directory, a Keras model in
            memory, or anything that ``import_model`` takes.
        output: file to write, or an existing folder, or one to make whose name ends in ``/``; by
            default a file in the working directory, named after model and scheme.
        scheme: quantization scheme: ``none``, ``fp16``, ``int8-dynamic``, ``int8``,
            ``int8-full``, ``int16x8``, ``int4-weight``, or ``auto`` for the fastest on this
            machine that meets the constraints.
        io: type of the image input: ``float32`` (0–255), ``uint8`` (raw pixels) or ``int8``
            (pixel minus 128). By default ``int8`` for ``int8-full``, whose logits are of the same
            type, else ``float32``.
        data: images for calibration and parity: a name, folder or ``.npz``; without it those of
            the run directory, else the model's calibration record and photo crops.
        calibration_samples: training images to calibrate with.
        parity_samples: test images to verify parity on.
        no_fold: names of folds to leave out, of ``cct_export.graph.fold.PASSES``.
        calibrate: how the range of a tensor follows from its values: ``min-max``, ``percentile``,
            ``entropy``, ``mse``, or ``best``, for each tensor the one that costs the logits least.
        rounding: of weights: ``gptq`` (arXiv:2210.17323) on the calibration images, or ``nearest``.
        min_sqnr: lowest SQNR of the logits in dB; the steps with the largest error stay in float
            until it holds.
        max_drop: points of top-1 accuracy, 0 to 100, that ``auto`` may lose; needs ``data``.
        target: engine that the file is made for: ``litert``, which is the default, or ``tflm`` for
            TFLite Micro, which takes ``int8-full`` and fewer operators.
        optimize: what counts more for float32: ``size``, or ``speed`` on one thread of a CPU, for
            which large convolutions get more weights and fewer multiplications.
        options: what the model's file does not say: how pixels were normalized, the names of its
            classes, whether to append a softmax. Normalizing becomes part of the file.
        progress: called with what runs now.

    Returns:
        The artifact and its parity report. If parity failed, the file's name ends in
        ``.rejected``, and a file that was there before is untouched.

    Raises:
        CCTExportError: any of its kinds; nothing was written.

    Example:
        >>> exported = cct_export.export_tflite("runs/cct", scheme="int8", output="cct.tflite")
        >>> exported.parity.passed
        True
    """
    spec = export_spec("tflite", scheme, io=io, no_fold=no_fold, target=target, optimize=optimize)
    calibration = calibration_spec(calibration_samples, calibrate, rounding)
    constraints = Constraints(min_sqnr, max_drop)
    path = output_path(output, default_output(name_of(model), spec))
    request = ExportRequest(spec, path, data, calibration, constraints, parity_samples)
    (exported,) = export_requests(model, [request], progress, options)
    return exported


def export_onnx(
    model: "Source" = DEFAULT_MODEL,
    *,
    output: str | Path | None = None,
    scheme: str = "none",
    io: str | None = None,
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    opset: int | None = None,
    dynamic_batch: bool | None = None,
    no_fold: str | Sequence[str] = (),
    calibrate: str = CalibrationSpec.default_method,
    rounding: str = CalibrationSpec.rounding,
    min_sqnr: float | None = None,
    max_drop: float | None = None,
    target: str | None = None,
    layout: str = "nhwc",
    activations: str | None = None,
    pure_onnx: bool = False,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "Exported":
    """Writes an ``.onnx`` file and verifies its numerical parity with the Keras model.

    Args:
        model: a preset with shipped weights, a ``.keras`` file, a run directory, a Keras model in
            memory, or anything that ``import_model`` takes.
        output: file to write, or an existing folder, or one to make whose name ends in ``/``; by
            default a file in the working directory, named after model and scheme.
        scheme: quantization scheme: ``none``, ``fp16``, ``int8-dynamic``, ``int8``,
            ``int8-full`` and ``int16x8`` for NPUs, ``int4-weight``, or ``auto`` for the fastest
            on this machine that meets the constraints.
        io: type of the image input: ``float32`` (0–255), which is the default, or ``uint8`` (raw
            pixels).
        data: images for calibration and parity: a name, folder or ``.npz``; without it those of
            the run directory, else the model's calibration record and photo crops.
        calibration_samples: training images to calibrate with.
        parity_samples: test images to verify parity on.
        opset: ONNX operator set: 13 to 23, by default 20; ``int8-full`` needs 20, ``int16x8`` and
            ``int4-weight`` need 21, which is then the default.
        dynamic_batch: take any number of images, else exactly one; by default any, for
            ``int8-full`` and ``int16x8`` always one.
        no_fold: names of folds to leave out, of ``cct_export.graph.fold.PASSES``.
        calibrate: how the range of a tensor follows from its values: ``min-max``, ``percentile``,
            ``entropy``, ``mse``, or ``best``, for each tensor the one that costs the logits least.
        rounding: of weights: ``gptq`` (arXiv:2210.17323) on the calibration images, or ``nearest``.
        min_sqnr: lowest SQNR of the logits in dB; the steps with the largest error stay in float
            until it holds.
        max_drop: points of top-1 accuracy, 0 to 100, that ``auto`` may lose; needs ``data``.
        target: processor to choose the integers of ``int8`` for: ``x86``, which is the default, for
            unsigned activations, ``arm64`` for signed ones.
        layout: order of the axes of the image input: ``nhwc``, or ``nchw`` for channels first.
        activations: of ``int8-full``: ``uint8``, or ``uint16``, which makes it ``int16x8``.
        pure_onnx: standard operators only, which any reader knows; else ``int8`` has some of ONNX
            Runtime's own, which are faster.
        options: what the model's file does not say: how pixels were normalized, the names of its
            classes, whether to append a softmax. Normalizing becomes part of the file.
        progress: called with what runs now.

    Returns:
        The artifact and its parity report. If parity failed, the file's name ends in
        ``.rejected``, and a file that was there before is untouched.

    Raises:
        CCTExportError: any of its kinds; nothing was written.

    Example:
        >>> exported = cct_export.export_onnx("model.keras", scheme="int8", data="photos/")
        >>> exported.artifact.path
        PosixPath('model-int8.onnx')
    """
    spec = export_spec(
        "onnx", scheme, io=io, dynamic_batch=dynamic_batch, opset=opset, no_fold=no_fold,
        target=target, layout=layout, activations=activations, pure_onnx=pure_onnx,
    )  # fmt: skip
    calibration = calibration_spec(calibration_samples, calibrate, rounding)
    constraints = Constraints(min_sqnr, max_drop)
    path = output_path(output, default_output(name_of(model), spec))
    request = ExportRequest(spec, path, data, calibration, constraints, parity_samples)
    (exported,) = export_requests(model, [request], progress, options)
    return exported


def export_files(
    model: "Source" = DEFAULT_MODEL,
    *,
    formats: str | Sequence[str] = ("tflite", "onnx"),
    schemes: str | Sequence[str] = ("none", "int8"),
    output: str | Path = ".",
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    calibrate: str = CalibrationSpec.default_method,
    rounding: str = CalibrationSpec.rounding,
    min_sqnr: float | None = None,
    max_drop: float | None = None,
    target: str | None = None,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "list[Exported]":
    """Writes a file for every format and scheme; the Keras model is loaded and run once.

    Args:
        model: see ``export_tflite``.
        formats: of ``tflite``, ``onnx`` and ``ncnn``.
        schemes: quantization schemes that every one of the formats has, see ``export_tflite``.
        output: folder for the files, which are named after model and scheme; made if missing.
        data: see ``export_tflite``, and so the arguments that follow.
        calibration_samples: see there.
        parity_samples: see there.
        calibrate: see there.
        rounding: see there.
        min_sqnr: see there.
        max_drop: see there.
        target: what all files are made for, see ``export_tflite`` and ``export_onnx``.
        options: see there.
        progress: called with what runs now.

    Returns:
        The artifacts with their parity, by format and then by scheme. The file of one that failed
        parity ends in ``.rejected``.

    Raises:
        CCTExportError: any of its kinds; the message names the files that were written before.

    Example:
        >>> exported = cct_export.export_files("runs/cct", schemes=["int8", "fp16"], output="out")
        >>> [file.artifact.path.name for file in exported]
        ['cct-int8.tflite', 'cct-fp16.tflite', 'cct-int8.onnx', 'cct-fp16.onnx']
    """
    calibration = calibration_spec(calibration_samples, calibrate, rounding)
    if max_drop is not None and AUTO not in map(str.casefold, _listed(schemes)):
        raise InvalidRequest("--max-drop is for --quantize auto, which chooses by it")
    requests: dict[Path, ExportRequest] = {}
    for name in _listed(formats):
        format = choose(name, INPUT_TYPES, what="format")
        for scheme in _listed(schemes):
            spec = export_spec(format, scheme, target=target)
            bounds = Constraints(min_sqnr, max_drop if spec.scheme == AUTO else None)
            path = Path(output) / default_output(name_of(model), spec)
            requests[path] = ExportRequest(spec, path, data, calibration, bounds, parity_samples)
    return export_requests(model, list(requests.values()), progress, options)


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def export_requests(
    model: "Source",
    requests: "Sequence[ExportRequest]",
    progress: StatusProgress,
    options: ModelOptions = NO_OPTIONS,
) -> "list[Exported]":
    """Exports a model as ``requests`` say, which were made by ``api.request``."""
    if not requests:
        raise InvalidRequest("nothing to export: name a format and a quantization scheme")
    for request in requests:
        check_export(model, request)
    loaded = load(model, options=options, progress=progress)
    from cct_export.export import export

    exported: list[Exported] = []
    try:
        for file in export(loaded, requests, progress):
            exported.append(file)
    except CCTExportError as error:
        if not exported:
            raise
        written = ", ".join(str(file.artifact.path) for file in exported)
        error.args = (f"{error} (written before: {written})",)
        raise
    return exported


def quantize_report(
    model: "Source" = DEFAULT_MODEL,
    *,
    format: str = "tflite",
    scheme: str = "int8",
    data: str | None = None,
    samples: int = 100,
    sensitivity: bool = False,
    calibrate: str = CalibrationSpec.default_method,
    rounding: str = CalibrationSpec.rounding,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "QuantizationReport":
    """Reports where quantizing a model loses accuracy, step by step; writes nothing.

    Args:
        model: one whose steps are known, as those of any CCT are: a preset with shipped weights, a
            ``.keras`` file, a run directory, a Keras model in memory, or anything that
            ``import_model`` takes.
        format: ``tflite`` or ``onnx``.
        scheme: a quantization scheme with integers.
        data: images for calibration and comparison: a name, folder or ``.npz``; without it those
            of the run directory, else the model's calibration record and photo crops.
        samples: test images to compare on.
        sensitivity: also measure the logits with each step quantized alone, and left out.
        calibrate: how the range of a tensor follows from its values: ``min-max``, ``percentile``,
            ``entropy`` or ``mse``.
        rounding: of weights: ``gptq`` or ``nearest``.
        options: see ``export_tflite``.
        progress: called with what runs now.

    Returns:
        For every step the SQNR of its output tensor, its range, and the share of values that were
        clipped.

    Raises:
        InvalidRequest: the steps of the model are not known, or the scheme has no integers.
        CCTExportError: any reason that an export has.

    Example:
        >>> report = cct_export.quantize_report(scheme="int8", sensitivity=True)
        >>> worst = min(report.steps, key=lambda step: step.alone_db)
    """
    format = choose(format, INPUT_TYPES, what="format")
    spec = export_spec(format, scheme, auto=False)
    calibration = calibration_spec(CALIBRATION_SAMPLES, calibrate, rounding, best=False)
    check_quantizes(spec)
    SAMPLES.check("samples", samples)
    check_model(model)
    if data is not None:
        check_data(data)
    loaded = load(model, options=options, progress=progress)
    from cct_export.export.sensitivity import report
    from cct_export.export.workspace import Workspace

    workspace = Workspace(
        loaded,
        data=data,
        calibration_samples=calibration.samples,
        parity_samples=samples,
        progress=progress,
    )
    return report(workspace, spec, calibration, sensitivity=sensitivity)


def default_output(source: str, spec: ExportSpec) -> Path:
    """Returns the name of the file that ``spec`` makes of ``source``, in the current folder."""
    scheme = "" if spec.scheme == "none" else f"-{spec.scheme}"
    target = f"-{spec.target}" if spec.target else ""
    return Path(f"{stem_of(source)}{scheme}{target}{SUFFIXES[spec.format]}")


def output_path(output: str | Path | None, default: Path) -> Path:
    """Returns the file to write: ``output``, or ``default`` in it where that is a folder.

    A folder with the suffix of the file is not meant: writing to it is refused later.
    """
    if output is None:
        return default
    if not str(output):
        raise InvalidRequest("the name of the output is empty: name a file or a folder")
    path = Path(output)
    is_folder = path.is_dir() and path.suffix != default.suffix
    return path / default if is_folder or str(output).endswith(os.sep) else path


def name_of(model: "Source") -> str:
    """Returns what a model is called: as the user wrote it, or its own name."""
    if isinstance(model, str | Path):
        return str(model)
    return str(getattr(model, "source", None) or getattr(model, "name", model))
