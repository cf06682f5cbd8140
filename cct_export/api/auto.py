"""Exporting a model in the fastest engine and scheme."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.export import name_of, output_path
from cct_export.api.model import load, stem_of
from cct_export.api.request import calibration_spec, check_export, export_spec
from cct_export.errors import InvalidRequest, MissingDependency
from cct_export.names import choose
from cct_export.specs import (
    AUTO,
    CALIBRATION_SAMPLES,
    DEFAULT_MODEL,
    ENGINE_FORMATS,
    NO_OPTIONS,
    PARITY_SAMPLES,
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
    from cct_export.records import Exported


def export_auto(
    model: "Source" = DEFAULT_MODEL,
    *,
    engines: str | Sequence[str] = (),
    output: str | Path | None = None,
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    calibrate: str = CalibrationSpec.default_method,
    rounding: str = CalibrationSpec.rounding,
    min_sqnr: float | None = None,
    max_drop: float | None = None,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "Exported":
    """Writes the file of the engine and scheme that are the fastest on this machine.

    Every scheme for a CPU is exported for every engine, verified by that engine, and timed on one
    thread, all files in turn. The files take one image at a time.

    Args:
        model: see ``export_tflite``.
        engines: of ``litert`` (TFLite files), ``onnxruntime``, ``openvino`` (both ONNX; for
            OpenVINO of standard operators only) and ``ncnn``; by default all that are installed.
        output: what the file is called before the suffix of its format: ``cct`` for ``cct.tflite``,
            ``cct.onnx`` or ``cct.ncnn.param``. Or an existing folder, or one to make whose name
            ends in ``/``; by default named after the model, in the working directory.
        data: see ``export_tflite``, and so the arguments that follow.
        calibration_samples: see there.
        parity_samples: see there.
        calibrate: see there, but for ``best``.
        rounding: see there.
        min_sqnr: lowest SQNR of the logits in dB.
        max_drop: points of top-1 accuracy, 0 to 100, that may be lost; needs ``data``.
        options: see ``export_tflite``.
        progress: called with what runs now.

    Returns:
        The artifact and its parity report; ``candidates`` has every engine and scheme, and
        ``chosen`` the one that was written.

    Raises:
        MissingDependency: an engine of ``engines`` is not installed, or none is.
        CCTExportError: no candidate meets the constraints, or any reason that an export has;
            nothing was written.

    Example:
        >>> exported = cct_export.export_auto("runs/cct", engines=["litert", "onnxruntime"])
        >>> exported.chosen.engine, exported.artifact.path.name
        ('litert', 'cct-auto.tflite')
    """
    names = [engines] if isinstance(engines, str) else engines
    chosen = dict.fromkeys(choose(name, ENGINE_FORMATS, what="engine") for name in names)
    calibration = calibration_spec(calibration_samples, calibrate, rounding)
    stem = _stem(output, f"{stem_of(name_of(model))}-{AUTO}")
    requests = [
        ExportRequest(
            _spec(engine),
            stem.with_name(stem.name + SUFFIXES[ENGINE_FORMATS[engine]]),
            data,
            calibration,
            Constraints(min_sqnr, max_drop),
            parity_samples,
        )
        for engine in chosen or _installed()
    ]
    for request in requests:
        check_export(model, request)
    loaded = load(model, options=options, progress=progress)
    from cct_export.export import export_fastest

    return export_fastest(loaded, requests, progress)


def _spec(engine: str) -> ExportSpec:
    """Returns what is exported for an engine: files for one image, which are the fastest."""
    format = ENGINE_FORMATS[engine]
    spec = export_spec(format, ExportSpec.scheme, dynamic_batch=False)
    return replace(spec, scheme=AUTO, engine=engine, pure_onnx=engine == "openvino")


def _stem(output: str | Path | None, default: str) -> Path:
    """Returns the path of the file without the suffix, which depends on what is chosen."""
    if output and Path(output).is_dir():
        return Path(output, default)
    path = output_path(output, Path(default))
    for suffix in SUFFIXES.values():
        if path.name.casefold().endswith(suffix):
            raise InvalidRequest(
                f"{path} names a format, which auto chooses: leave {suffix} out, it is added"
            )
    return path


def _installed() -> list[str]:
    """Returns the engines that are installed, with what writes their files."""
    from cct_export.runtimes import ENGINES

    found = []
    for name, format in ENGINE_FORMATS.items():
        try:
            ENGINES[name].import_engine()
        except MissingDependency:
            continue
        if format != "onnx" or importlib.util.find_spec("onnx"):
            found.append(name)
    if not found:
        raise MissingDependency(
            "no engine is installed: pip install 'cct-export[all]' brings LiteRT and ONNX Runtime"
        )
    return found
