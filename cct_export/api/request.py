"""What a caller asks for: what is wrong with it is found out before Keras is imported."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cct_export.errors import InvalidRequest, MissingDependency, UnsupportedScheme
from cct_export.files import check_file, check_writable, expand_user
from cct_export.names import choose
from cct_export.specs import (
    AUTO,
    BEST,
    FOLDS,
    LAYOUTS,
    METHODS,
    NO_OPTIONS,
    PRIORITIES,
    PROFILES,
    ROUNDINGS,
    SAMPLES,
    SUFFIXES,
    BenchJob,
    CalibrationSpec,
    ExportRequest,
    ExportSpec,
    ModelOptions,
    QuantScheme,
    Timing,
    TrainSpec,
    opset_of,
)

if TYPE_CHECKING:
    from cct_export.api.model import Source

# A regression gate needs to know how much one process differs from the next.
CHECK_TIMING = {"repeats": 5, "min_s": 5.0}


def export_spec(
    format: str,
    scheme: str,
    *,
    io: str | None = None,
    dynamic_batch: bool | None = None,
    opset: int | None = None,
    no_fold: str | Sequence[str] = (),
    target: str | None = None,
    layout: str = ExportSpec.layout,
    optimize: str = ExportSpec.optimize,
    activations: str | None = None,
    pure_onnx: bool = False,
    auto: bool = True,
) -> ExportSpec:
    """Returns what file to export, with every name as this package writes it.

    Args:
        format: ``tflite``, ``onnx`` or ``ncnn``.
        scheme: see ``export_tflite``; the same for the arguments that follow.
        io: see there.
        dynamic_batch: see ``export_onnx``.
        opset: see there.
        no_fold: see there.
        target: see ``export_tflite`` and ``export_onnx``.
        layout: see there.
        optimize: see ``export_tflite``.
        activations: see ``export_onnx``.
        pure_onnx: see there.
        auto: whether ``auto`` may stand for a scheme.

    Raises:
        InvalidRequest: a name or an opset that does not exist.
        UnsupportedScheme: the format has no such scheme, or not with these options.
    """
    from cct_export.quantize.schemes import (
        choose_io,
        choose_scheme,
        choose_target,
        scheme_of,
        with_activations,
    )

    # Nothing is to be chosen: float16 weights become float32 as they are read, int8 is the rest.
    auto = auto and format != "ncnn"
    scheme = choose_scheme(scheme, format, *((AUTO,) if auto else ()))
    scheme = with_activations(scheme, activations)
    record = None if scheme == AUTO else scheme_of(scheme, format)
    folds = [no_fold] if isinstance(no_fold, str) else no_fold
    spec = ExportSpec(
        format,
        scheme,
        choose_io(io, record, format),
        _has_dynamic_batch(dynamic_batch, record, format),
        opset,
        tuple(choose(name, FOLDS, what="fold") for name in folds),
        choose_target(target, scheme, format),
        "nchw" if format == "ncnn" else choose(layout, LAYOUTS, what="layout"),
        choose(optimize, PRIORITIES, what="priority"),
        pure_onnx,
    )
    if spec.optimize == "speed" and scheme not in ("none", AUTO):
        raise UnsupportedScheme(f"--optimize speed is for float32: leave it out, or {scheme}")
    if format == "onnx":
        opset_of(spec)
    return spec


def _has_dynamic_batch(given: bool | None, scheme: QuantScheme | None, format: str) -> bool:
    """Returns whether a file takes any number of images: by default ONNX, except for NPUs."""
    if given and scheme is not None and scheme.integers_only:
        raise UnsupportedScheme(
            f"{scheme.name} is for NPUs, which take one image at a time: leave --dynamic-axes out",
            needs="--no-dynamic-axes",
        )
    if given is not None:
        return given
    return format == "onnx" and not (scheme is not None and scheme.integers_only)


def calibration_spec(
    samples: int, methods: str, rounding: str, *, best: bool = True
) -> CalibrationSpec:
    """Returns how ranges and rounding are chosen.

    Args:
        samples: training images to calibrate with.
        methods: name of a calibration method.
        rounding: of weights.
        best: whether ``best`` may stand for a method.

    Raises:
        InvalidRequest: a name that does not exist, or no images, or too many.
    """
    SAMPLES.check("calibration_samples", samples)
    known = (*METHODS, BEST) if best else METHODS
    return CalibrationSpec(
        samples,
        choose(methods, known, what="calibration method"),
        choose(rounding, ROUNDINGS, what="rounding"),
    )


def check_export(model: "Source", request: ExportRequest) -> None:
    """Refuses an export that cannot be done.

    Args:
        model: what to export.
        request: with the names that ``export_spec`` and ``calibration_spec`` return.

    Raises:
        InvalidRequest: options contradict each other, or name what does not exist.
        OutputError: the output cannot be written.
        MissingDependency: the engine that verifies the file is not installed.
    """
    from cct_export.records import weights
    from cct_export.runtimes import ENGINES, engine_name

    spec, output = request.spec, request.output
    _check_constraints(request)
    suffix = SUFFIXES[spec.format]
    if output.name == suffix or not output.name.endswith(suffix):
        raise InvalidRequest(f"cannot write {output}: choose a name that ends in {suffix}")
    for path in filter(None, (output, weights.path_of(output))):
        check_writable(path)
    data = check_model(model)
    if request.data is not None:
        data = check_data(request.data)
    check_not_read(output, model, "exported")
    check_not_read(output, request.data, "read")
    if request.constraints.max_drop is not None and data is None:
        raise InvalidRequest("--max-drop needs an accuracy: give labelled images with --data")
    if spec.format == "onnx" and importlib.util.find_spec("onnx") is None:
        raise MissingDependency.of("onnx", "onnx")
    ENGINES[engine_name(spec)].import_engine()


def check_not_read(output: Path, source: "Source | None", verb: str) -> None:
    """Refuses an output that is, or leads to, a file that is read.

    Args:
        output: the file to write.
        source: a model or data; of a run directory its weights are read.
        verb: what is done with the source, for the message.

    Raises:
        InvalidRequest: it is the same file.
    """
    from cct_export.training.run import RunDirectory

    if not isinstance(source, str | Path) or not output.exists():
        return
    path = expand_user(source)
    read = RunDirectory(path).best_file if path.is_dir() else path
    if read.exists() and output.samefile(read):
        raise InvalidRequest(f"{output} is what is {verb}: name another file with output")


def _check_constraints(request: ExportRequest) -> None:
    """Refuses bounds that the scheme cannot meet."""
    from cct_export.quantize.schemes import scheme_of

    spec, constraints = request.spec, request.constraints
    bound, drop = constraints.min_sqnr_db, constraints.max_drop
    if spec.scheme == AUTO:
        if request.calibration.methods == BEST:
            raise InvalidRequest(
                "--calibrate best is for one scheme, auto tries them all: name either a scheme or "
                "a calibration method"
            )
        return
    if drop is not None:
        raise InvalidRequest("--max-drop is for --quantize auto, which chooses by it")
    if bound is not None and scheme_of(spec.scheme, spec.format).integers_only:
        raise InvalidRequest(
            f"{spec.scheme} has integers only: no step can stay in float for {bound:g} dB; use int8"
        )


def check_quantizes(spec: ExportSpec) -> None:
    """Refuses a scheme without integers, about which there is nothing to report."""
    from cct_export.quantize.schemes import scheme_of

    if not scheme_of(spec.scheme, spec.format).quantizes_weights:
        raise InvalidRequest(f"{spec.scheme} has no integers: there is nothing to report")


def check_model(model: "Source") -> str | None:
    """Refuses what cannot be a MODEL; returns the data it was trained on, None if not recorded.

    Raises:
        InvalidRequest: there is nothing of that name, or it is of another kind.
        InvalidModel: a run directory that cannot be used.
        MissingDependency: a library that fetches it is not installed.
    """
    from cct_export.importers import location

    return location.check(str(model)) if isinstance(model, str | Path) else None


def check_options(options: ModelOptions) -> None:
    """Refuses modules that are no Python files; raises ``InvalidRequest``."""
    for path in options.modules:
        if path.suffix != ".py":
            raise InvalidRequest(f"{path} is no Python file: --import takes one, such as layers.py")
        check_file(path, "Python file")


def check_data(name: str) -> str:
    """Refuses ``--data`` that does not exist; returns its name as ``data.read`` takes it.

    Raises:
        InvalidRequest: there is no such data set, folder or file.
    """
    from cct_export.data import find_data

    return find_data(name)


def check_recipe(recipe: TrainSpec, pretrained: "Source | None", teacher: "Source | None") -> None:
    """Refuses names in a recipe that do not exist; raises ``InvalidRequest``."""
    from cct_export.training.recipes import check_parts

    check_parts(recipe.freeze)
    if recipe.freeze and pretrained is None:
        raise InvalidRequest(
            "only pretrained weights can be frozen: name the model to fine-tune (--from)"
        )
    if recipe.quantize != "none" and pretrained is None:
        raise InvalidRequest(
            f"quantize {recipe.quantize} fine-tunes a trained model: name it (--from), or leave "
            "quantize out"
        )
    for model in (pretrained, teacher):
        if model is not None:
            check_model(model)
    check_data(recipe.data)


def check_run_folder(folder: Path, resume: bool) -> None:
    """Refuses a folder in which a run cannot begin, or cannot be resumed.

    Raises:
        CCTExportError: it holds another run, or none to resume.
        OutputError: it cannot be written.
    """
    from cct_export.training.run import RunDirectory

    run = RunDirectory(folder)
    run.check(resume)
    check_writable(run.record_file)


def check_source(path: Path) -> None:
    """Refuses what is neither an exported file, nor a record of a measurement, nor a MODEL.

    Raises:
        InvalidRequest: there is no such file or model.
    """
    from cct_export.runtimes import is_artifact

    if is_artifact(path) or path.suffix == ".json":
        check_file(path)
    else:
        check_model(path)


def check_has_model(sources: Sequence[str | Path], options: ModelOptions) -> None:
    """Refuses options for a MODEL where all sources are exported files or records."""
    from cct_export.runtimes import is_artifact

    if options == NO_OPTIONS or not sources:
        return
    if all(is_artifact(Path(source)) or is_record(source) for source in sources):
        raise InvalidRequest(
            f"{sources[0]} says itself what it does to pixels and what its classes are: leave "
            "options for a MODEL out, or export the MODEL with them"
        )


def engine_for(path: Path) -> str:
    """Returns the name of the engine that runs an exported file or a MODEL."""
    from cct_export.runtimes import ENGINE_NAMES, format_of, is_artifact

    return ENGINE_NAMES[format_of(path) if is_artifact(path) else "keras"]


def check_job(job: BenchJob) -> None:
    """Refuses what is not there, or is of another format than the engine of a job runs.

    Raises:
        InvalidRequest: there is no such file or model, or it is of another format.
    """
    from cct_export.runtimes import TIMED_ENGINES, format_of, is_artifact

    check_source(job.path)
    format = format_of(job.path) if is_artifact(job.path) else "keras"
    if job.spec.runtime not in TIMED_ENGINES[format]:
        raise InvalidRequest(
            f"{job.path} is not for {job.spec.runtime}, which the baseline was measured with: "
            "name a file of the same format"
        )


def check_artifact(path: Path) -> str:
    """Refuses what is not the path of an exported file; returns its format.

    Raises:
        InvalidRequest: there is no such file, or it is of another kind.
    """
    from cct_export.runtimes import format_of

    format = format_of(path)
    check_file(path)
    return format


def labelled(accuracy: bool, data: str | None) -> str | None:
    """Returns the images that accuracy is measured on, None for no accuracy."""
    if accuracy and data is None:
        raise InvalidRequest("--accuracy needs --data: the labelled images to measure on")
    if data is not None:
        data = check_data(data)
    return data if accuracy else None


def benchmark_binary_of(devices: Sequence[str], binary: str | Path | None) -> Path | None:
    """Returns the program that measures on phones, None for none."""
    if binary and not any(name.partition(":")[0] == "adb" for name in devices):
        raise InvalidRequest(
            "a benchmark binary is for the device adb: others measure with their own engines"
        )
    return Path(binary) if binary else None


def timing_of(profile: str, **changes: Any) -> Timing:
    """Returns the timing of a profile with some fields changed; None is no change.

    Raises:
        InvalidRequest: there is no such profile, or a number is out of its range.
    """
    profile = choose(profile, PROFILES, what="profile")
    return dataclasses.replace(
        PROFILES[profile], **{name: value for name, value in changes.items() if value is not None}
    )


def timing_of_check(**changes: Any) -> Timing:
    """Returns the timing of a regression check, see ``timing_of``."""
    given = {name: value for name, value in changes.items() if value is not None}
    return timing_of("quick", **(CHECK_TIMING | given))


def is_record(source: str | Path) -> bool:
    """Tells whether a source is a record that ``cct-bench --json`` wrote, by its name."""
    return str(source).endswith(".json")
