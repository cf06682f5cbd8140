"""Files made of models, and what quantizing one would cost."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.models import CALIBRATION_SAMPLES, PARITY_SAMPLES, load, stem_of
from cct_export.errors import InvalidRequest
from cct_export.specs import (
    AUTO,
    BEST,
    DEFAULT_MODEL,
    METHODS,
    ROUNDINGS,
    TARGETS,
    CalibrationSpec,
    ExportSpec,
    TuningSpec,
)

if TYPE_CHECKING:
    from cct_export.api.models import Source
    from cct_export.export.pipeline import Exported
    from cct_export.records import QuantizationReport


def export_tflite(
    model: "Source" = DEFAULT_MODEL,
    output: str | Path | None = None,
    scheme: str = "none",
    io: str | None = None,
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    no_fold: str | Sequence[str] = (),
    calibrate: str = "mse",
    rounding: str = "gptq",
    min_sqnr: float | None = None,
    max_drop: float | None = None,
) -> "Exported":
    """Writes a ``.tflite`` file that was proven to give the model's logits.

    Args:
        model: see ``load``.
        output: file to write; by default named after model and scheme, in the working directory.
        scheme: ``none``, ``fp16``, ``int8-dynamic``, ``int8``, ``int8-full``, ``int16x8``,
            ``int4-weight``, or ``auto`` for the fastest on this machine that keeps the bounds.
        io: type of the image input: ``float32`` (0–255), ``uint8`` (raw pixels) or ``int8``
            (pixel minus 128). By default ``int8`` for ``int8-full``, whose logits are of the same
            type, else ``float32``.
        data: images for calibration and parity: a name, folder or ``.npz``; without it those of
            the run directory, else the model's calibration record and photo crops.
        calibration_samples: training images to calibrate with.
        parity_samples: test images to compare on.
        no_fold: names of folds to leave out, of ``cct_export.graph.fold.PASSES``.
        calibrate: how the range of a tensor follows from its values: ``min-max``, ``percentile``,
            ``entropy``, ``mse``, or ``best``, for each tensor the one that harms the logits least.
        rounding: of weights: ``gptq`` (arXiv:2210.17323) on the calibration images, or ``nearest``.
        min_sqnr: signal to noise ratio of the logits in dB at least; the worst steps go back to
            float until it holds.
        max_drop: points of top-1 accuracy that ``auto`` may lose at most; needs ``data``.

    Returns:
        The artifact and the parity report. If parity failed the file's name ends in
        ``.rejected``, and a file that was there before is untouched.

    Raises:
        CCTExportError: any of its kinds; nothing was written.
    """
    spec = ExportSpec("tflite", scheme, io or _usual_io(scheme), no_fold=_names(no_fold))
    calibration = _calibration(calibration_samples, calibrate, rounding)
    wishes = TuningSpec(calibrate == BEST, min_sqnr, max_drop)
    return _export(model, spec, output, data, calibration, wishes, parity_samples)


def export_onnx(
    model: "Source" = DEFAULT_MODEL,
    output: str | Path | None = None,
    scheme: str = "none",
    io: str | None = None,
    data: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    parity_samples: int = PARITY_SAMPLES,
    opset: int | None = None,
    dynamic_batch: bool = True,
    no_fold: str | Sequence[str] = (),
    calibrate: str = "mse",
    rounding: str = "gptq",
    min_sqnr: float | None = None,
    max_drop: float | None = None,
    target: str = "x86",
) -> "Exported":
    """Writes an ``.onnx`` file that was proven to give the model's logits.

    Args:
        model: see ``load``.
        output: see ``export_tflite``.
        scheme: ``none``, ``fp16``, ``int8-dynamic``, ``int8``, ``int4-weight`` (opset 21 or
            later), or ``auto``.
        io: type of the image input: ``float32`` (0–255), which is the default, or ``uint8`` (raw
            pixels).
        data: see ``export_tflite``.
        calibration_samples: training images to calibrate with.
        parity_samples: test images to compare on.
        opset: ONNX operator set: 13 to 23, by default 20; of models that are no CCT 13 to 18, by
            default 18.
        dynamic_batch: take any number of images, else exactly one.
        no_fold: see ``export_tflite``.
        calibrate: see ``export_tflite``.
        rounding: see ``export_tflite``.
        min_sqnr: see ``export_tflite``.
        max_drop: see ``export_tflite``.
        target: ``x86`` for unsigned activations, which its integer instructions want, or
            ``arm64`` for signed ones.

    Returns:
        See ``export_tflite``.

    Raises:
        CCTExportError: any of its kinds; nothing was written.
    """
    spec = ExportSpec(
        "onnx", scheme, io or "float32", dynamic_batch, opset, _names(no_fold), target
    )
    calibration = _calibration(calibration_samples, calibrate, rounding)
    wishes = TuningSpec(calibrate == BEST, min_sqnr, max_drop)
    return _export(model, spec, output, data, calibration, wishes, parity_samples)


def quantize_report(
    model: "Source" = DEFAULT_MODEL,
    format: str = "tflite",
    scheme: str = "int8",
    data: str | None = None,
    samples: int = 100,
    sensitivity: bool = False,
    calibrate: str = "mse",
    rounding: str = "gptq",
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> "QuantizationReport":
    """Tells where quantizing a model loses accuracy; exports nothing.

    Args:
        model: see ``load``.
        format: ``tflite`` or ``onnx``.
        scheme: one with integers.
        data: see ``export_tflite``.
        samples: test images to compare on.
        sensitivity: also find what each step does to the logits, alone and left out.
        calibrate: see ``export_tflite``; not ``best``.
        rounding: see ``export_tflite``.
        progress: called with the number of steps done and of all.

    Returns:
        For every step the noise ratio of its tensor against the float one, ranges, and the share
        of the values that its integers cannot reach.

    Raises:
        InvalidRequest: the model is no CCT, or the scheme has no integers.
        CCTExportError: any reason that an export has.
    """
    from cct_export.export.report import report
    from cct_export.quantize.schemes import scheme as known

    if format not in ("tflite", "onnx"):
        raise InvalidRequest(f"no format {format!r}: choose tflite or onnx")
    if calibrate == BEST:
        raise InvalidRequest("the report is of one way to calibrate: name it")
    known(scheme, format)
    spec = ExportSpec(format, scheme, _usual_io(scheme), dynamic_batch=format == "onnx")
    calibration = _calibration(CALIBRATION_SAMPLES, calibrate, rounding)
    return report(load(model), spec, data, calibration, samples, sensitivity, progress)


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _usual_io(scheme: str) -> str:
    return "int8" if scheme == "int8-full" else "float32"


def _calibration(samples: int, method: str, rounding: str) -> CalibrationSpec:
    """Raises ``InvalidRequest`` for words that there are not."""
    for what, word, words in (
        ("way to calibrate", method, (*METHODS, BEST)),
        ("rounding", rounding, ROUNDINGS),
    ):
        if word not in words:
            raise InvalidRequest(f"no {what} is called {word!r}: choose from {', '.join(words)}")
    if samples < 1:
        raise InvalidRequest(f"{samples} images calibrate nothing: take 200")
    methods = CalibrationSpec.methods if method == BEST else method
    return CalibrationSpec(samples, methods, rounding)


def _export(
    model: "Source",
    spec: ExportSpec,
    output: str | Path | None,
    data: str | None,
    calibration: CalibrationSpec,
    wishes: TuningSpec,
    parity_samples: int,
) -> "Exported":
    from cct_export.export.tuned import export_tuned
    from cct_export.graph.fold import check_names
    from cct_export.quantize.schemes import scheme

    _check_wishes(wishes)
    # Refuse unknown names before anything is loaded.
    if spec.scheme != AUTO:
        scheme(spec.scheme, spec.format)
    if spec.target not in TARGETS:
        raise InvalidRequest(f"no target {spec.target!r}: choose from {', '.join(TARGETS)}")
    check_names(spec.no_fold)
    loaded = load(model)
    path = Path(output) if output is not None else default_output(loaded.source, spec)
    return export_tuned(loaded, spec, path, data, calibration, wishes, parity_samples)


def _check_wishes(wishes: TuningSpec) -> None:
    bound, drop = wishes.min_sqnr_db, wishes.max_drop
    if bound is not None and not math.isfinite(bound):
        raise InvalidRequest(f"a noise ratio of at least {bound} dB bounds nothing: take 30, say")
    if drop is not None and not 0 <= drop <= 100:
        raise InvalidRequest(f"accuracy drops by 0 to 100 points, not by {drop}")


def default_output(source: str, spec: ExportSpec) -> Path:
    """Returns the name of the file that ``spec`` makes of ``source``, in the current folder."""
    stem = stem_of(source)
    scheme = "" if spec.scheme == "none" else f"-{spec.scheme}"
    return Path(f"{stem}{scheme}.{spec.format}")
