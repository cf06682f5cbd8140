"""The Python API: what the commands call, with files and frozen records in and out.

Everything heavy is imported by the function that needs it, so that measuring a ``.tflite`` never
loads TensorFlow.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.errors import InvalidRequest, ParityFailed
from cct_export.specs import (
    AUTO,
    BEST,
    DEFAULT_MODEL,
    METHODS,
    ROUNDINGS,
    TARGETS,
    BenchSpec,
    CalibrationSpec,
    ExportSpec,
    TrainSpec,
    TuningSpec,
)

if TYPE_CHECKING:
    from typing import TypeAlias

    import keras

    from cct_export.export import Exported
    from cct_export.importers import LoadedModel
    from cct_export.results import (
        BenchResult,
        Inspection,
        ParityReport,
        Prediction,
        QuantizationReport,
    )
    from cct_export.training.loop import Trained

    Source: TypeAlias = str | Path | keras.Model | LoadedModel

CALIBRATION_SAMPLES = 200
PARITY_SAMPLES = 1000


def _ignore(epoch: int, step: int, steps: int, metrics: dict[str, float]) -> None:
    """Default progress: none."""


def load(source: "Source" = DEFAULT_MODEL) -> "LoadedModel":
    """Loads a model.

    Args:
        source: a preset with shipped weights, a ``.keras`` file, a run directory, a
            ``.weights.h5`` of the keras.io example, or a Keras model in memory.

    Returns:
        The Keras model (``.model``) and where it is from.

    Raises:
        InvalidModel: not readable, unsafe, or no image classifier.
    """
    from cct_export.importers import LoadedModel, in_memory, load_model

    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, str | Path):
        return load_model(str(source))
    return in_memory(source)


def train(
    folder: str | Path,
    recipe: TrainSpec,
    model: str = DEFAULT_MODEL,
    resume: bool = False,
    progress: Callable[[int, int, int, dict[str, float]], None] = _ignore,
) -> "Trained":
    """Trains a preset into the run directory ``folder``.

    Args:
        folder: run directory, made if missing.
        recipe: data, epochs, seed and hyperparameters.
        model: name of a preset.
        resume: go on with the run that is in ``folder``.
        progress: called with epoch, step (0 at the end of an epoch), steps of an epoch, metrics.

    Returns:
        The best weights' file and accuracy.

    Raises:
        InvalidModel: unknown preset.
        InvalidData: the data cannot be used.
        CCTExportError: the folder holds another run.
        OutputError: the folder cannot be written.
    """
    from cct_export import data, draft
    from cct_export.model.checkpoint import image_shape
    from cct_export.model.presets import preset
    from cct_export.training import loop

    trained = loop.train(preset(model), recipe, Path(folder), resume, progress)
    loaded = load(str(folder))
    if loaded.calibration is not None:
        dataset = data.read(recipe.data, image_shape(loaded.model))
        draft.record(loaded, dataset, CALIBRATION_SAMPLES, loaded.calibration)
    return trained


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
    rounding: str = "learned",
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
        rounding: of weights: ``learned`` on the calibration images, or ``nearest``.
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
    rounding: str = "learned",
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
    from cct_export.graph.fold import check_names
    from cct_export.quantize.schemes import scheme
    from cct_export.tuning.export import export_tuned

    # Refuse unknown names before anything is loaded.
    if spec.scheme != AUTO:
        scheme(spec.scheme, spec.format)
    if spec.target not in TARGETS:
        raise InvalidRequest(f"no target {spec.target!r}: choose from {', '.join(TARGETS)}")
    check_names(spec.no_fold)
    loaded = load(model)
    path = Path(output) if output is not None else _default_output(loaded.source, spec)
    return export_tuned(loaded, spec, path, data, calibration, wishes, parity_samples)


def _default_output(source: str, spec: ExportSpec) -> Path:
    stem = Path(source).name.removesuffix(".weights.h5").removesuffix(".keras")
    scheme = "" if spec.scheme == "none" else f"-{spec.scheme}"
    return Path(f"{stem}{scheme}.{spec.format}")


def verify(
    artifact: str | Path,
    against: "Source | None" = None,
    data: str | None = None,
    samples: int = PARITY_SAMPLES,
    scheme: str | None = None,
) -> "ParityReport":
    """Compares an exported file, run by its own engine, with the Keras model.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file.
        against: the model, see ``load``; by default the one recorded in the file.
        data: see ``export_tflite``.
        samples: test images to compare on.
        scheme: quantization scheme to judge by; by default that of the file, ``none`` for a file
            that does not say. The images that count for agreement follow from it, so files of
            several makers are compared by the same one.

    Returns:
        The report.

    Raises:
        InvalidRequest: the file is of another kind, or not of this model; no such scheme.
        InvalidArtifact: the file cannot be run.
        InvalidModel: the model is gone, or not the one that the file was made of.
        InvalidData: the data cannot be used.
    """
    from cct_export import verification

    return verification.verify(
        Path(artifact), None if against is None else load(against), data, samples, scheme
    )


def quantize_report(
    model: "Source" = DEFAULT_MODEL,
    format: str = "tflite",
    scheme: str = "int8",
    data: str | None = None,
    samples: int = 100,
    sensitivity: bool = False,
    calibrate: str = "mse",
    rounding: str = "learned",
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
    from cct_export.quantize.schemes import scheme as known
    from cct_export.tuning.report import report

    if format not in ("tflite", "onnx"):
        raise InvalidRequest(f"no format {format!r}: choose tflite or onnx")
    if calibrate == BEST:
        raise InvalidRequest("the report is of one way to calibrate: name it")
    known(scheme, format)
    spec = ExportSpec(format, scheme, _usual_io(scheme), dynamic_batch=format == "onnx")
    calibration = _calibration(CALIBRATION_SAMPLES, calibrate, rounding)
    return report(load(model), spec, data, calibration, samples, sensitivity, progress)


def inspect(artifact: str | Path) -> "Inspection":
    """Tells what is in a ``.tflite`` or ``.onnx`` file, ours or any other.

    Args:
        artifact: the file.

    Returns:
        Its operators with shapes, multiply-accumulates per image and parameters, what its engine's
        delegate takes of them, and the scales of what is quantized.

    Raises:
        InvalidRequest: neither a ``.tflite`` nor an ``.onnx`` file.
        InvalidArtifact: missing or broken.
        MissingDependency: the engine, or for ONNX the library onnx, is not installed.
    """
    from cct_export import inspection

    return inspection.inspect(Path(artifact))


def predict(source: str | Path, images: Sequence[str | Path], top: int = 5) -> "list[Prediction]":
    """Classifies image files with an artifact or a model.

    Args:
        source: a ``.tflite`` or ``.onnx`` file, or a model, see ``load``.
        images: PNG or JPEG files.
        top: classes per image.

    Returns:
        One prediction per image, in order.

    Raises:
        CCTExportError: the source or an image cannot be used.
    """
    from cct_export import inference

    if isinstance(images, str | Path):
        images = [images]
    if not images:
        raise InvalidRequest("no image to predict: name one or more files")
    session = inference.open_any(Path(source))
    return inference.predict(session, [Path(image) for image in images], top)


def bench(
    format: str,
    sources: Sequence[str | Path] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    scheme: str = "none",
    data: str | None = None,
    accuracy: bool = False,
    **timing: Any,
) -> "list[BenchResult]":
    """Measures artifacts on this machine, each in processes of its own.

    Args:
        format: ``tflite``, ``onnx`` or ``keras``.
        sources: artifacts of the format, or models, which are exported first; the shipped model
            if there is none.
        threads: thread counts to measure with.
        batches: images per run to measure with.
        scheme: quantization scheme of models that are exported first.
        data: images for the calibration and parity of models that are exported first, and the
            labelled images that accuracy is measured on.
        accuracy: measure accuracy too; needs ``data``.
        **timing: ``warmup_s``, ``min_runs`` and ``min_s`` of ``BenchSpec``.

    Returns:
        A result per source, thread count and batch.

    Raises:
        CCTExportError: an artifact cannot be measured.
    """
    from cct_export.devices import local
    from cct_export.runtimes import ENGINES

    if format not in ENGINES:
        raise InvalidRequest(f"no engine for {format!r}: choose from {', '.join(ENGINES)}")
    if isinstance(sources, str | Path):
        sources = [sources]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sources or (DEFAULT_MODEL,):
            path = _ready(Path(source), format, scheme, Path(folder), data, max(batches))
            for count in threads:
                for batch in batches:
                    spec = BenchSpec(ENGINES[format], count, **timing)
                    results.append(local.measure(path, spec, batch, data if accuracy else None))
    return results


def time_together(
    artifacts: Sequence[str | Path],
    threads: int = 1,
    rounds: int = 50,
    burst: int = 20,
    warmup: int = 5,
) -> list[tuple[int, ...]]:
    """Times artifacts against each other: in this process, one image, round robin.

    Ratios of what comes out can be trusted on a machine that also does other things: every
    artifact has its turn in every round.

    Args:
        artifacts: ``.tflite`` and ``.onnx`` files, of this package or not.
        threads: threads that each engine may use.
        rounds: turns of each artifact.
        burst: timed runs in a turn.
        warmup: untimed runs before those.

    Returns:
        For each artifact the nanoseconds of its ``rounds · burst`` runs, in order.

    Raises:
        InvalidRequest: nothing to time, or a file of another kind.
        InvalidArtifact: a file cannot be run.
    """
    from cct_export.measurement.latency import time_files

    paths = [Path(artifact) for artifact in artifacts]
    for path in paths:
        if path.suffix not in (".tflite", ".onnx"):
            raise InvalidRequest(f"{path} is neither a .tflite nor an .onnx file")
    if not paths or min(threads, rounds, burst) < 1 or warmup < 0:
        raise InvalidRequest(
            "nothing to time: name artifacts, and one thread, round and run or more"
        )
    return time_files(paths, threads, rounds, burst, warmup)


def _ready(
    source: Path, format: str, scheme: str, folder: Path, data: str | None, batch: int
) -> Path:
    """Returns an artifact of ``format``: ``source`` itself, or what is exported of it."""
    if source.suffix in (".tflite", ".onnx") and source.suffix != f".{format}":
        raise InvalidRequest(f"{source} is no {format} file: use cct-bench {source.suffix[1:]}")
    ready = format == "keras" or source.suffix == f".{format}"
    if ready and scheme != "none":
        raise InvalidRequest(f"{source} is measured as it is: a scheme is for models to export")
    if ready:
        return source
    if format == "tflite" and batch > 1:
        raise InvalidRequest(
            f"a TFLite file of {source} would take one image at a time, not {batch}: "
            f"`cct-bench onnx {source} --batch {batch}` measures it"
        )
    output = folder / f"{_default_output(str(source), ExportSpec(format, scheme))}"
    if format == "tflite":
        exported = export_tflite(str(source), output, scheme, data=data)
    else:
        exported = export_onnx(str(source), output, scheme, data=data)
    if not exported.parity.passed:
        failures = "; ".join(exported.parity.failures)
        raise ParityFailed(f"{source} as {format} {scheme} is not measured: {failures}")
    return exported.artifact.path
