"""Exported files: verifying, inspecting, running and bundling them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.model import load
from cct_export.api.request import check_artifact, check_data, check_has_model, check_options
from cct_export.errors import InvalidData, InvalidRequest
from cct_export.names import choose
from cct_export.specs import (
    DEFAULT_MODEL,
    NO_OPTIONS,
    PARITY_SAMPLES,
    SAMPLES,
    SIZE,
    ModelOptions,
)
from cct_export.specs.progress import StatusProgress, no_progress

if TYPE_CHECKING:
    from cct_export.api.model import Source
    from cct_export.records import Inspection, ParityReport, Prediction


def verify(
    artifact: str | Path,
    *,
    against: "Source | None" = None,
    data: str | None = None,
    samples: int = PARITY_SAMPLES,
    scheme: str | None = None,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> "ParityReport":
    """Compares an exported file, run by its own engine, with the Keras model.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file.
        against: the model, see ``load``; by default the one recorded in the file, unless it would
            have to be downloaded.
        data: images to compare on: a name, folder or ``.npz``; without it those of the run
            directory, else photo crops.
        samples: test images to compare on.
        scheme: quantization scheme whose policy applies; by default that of the file, ``none`` for
            a file that does not say. The images that count for agreement follow from it, so files
            of several tools are compared by the same one.
        options: how to load ``against``, see ``load``. The model that is recorded in the file is
            loaded as it was for the export, as far as ``options`` say nothing else.
        progress: called with what runs now.

    Returns:
        The parity report, judged by the policy of that scheme.

    Raises:
        InvalidRequest: no such file, model, data or scheme; the file is of another kind, or not of
            this model; or it names one on the Hub, which ``against`` has to name too.
        InvalidArtifact: the file cannot be run.
        InvalidModel: the model is gone, or not the one that the file was made of.
        InvalidData: the data cannot be used.

    Example:
        >>> cct_export.verify("cct.tflite", data="photos/").sqnr_db
    """
    from cct_export.evaluation.parity import POLICIES
    from cct_export.evaluation.verify import verify as compare

    path = Path(artifact)
    check_artifact(path)
    if scheme is not None:
        scheme = choose(scheme, POLICIES, what="quantization scheme")
    if data is not None:
        check_data(data)
    SAMPLES.check("samples", samples)
    check_options(options)
    model = None if against is None else load(against, options=options, progress=progress)
    return compare(
        path,
        against=model,
        data=data,
        samples=samples,
        scheme=scheme,
        options=options,
        progress=progress,
    )


def inspect(artifact: str | Path) -> "Inspection":
    """Lists the operators and tensors of a ``.tflite`` or ``.onnx`` file, ours or any other.

    Args:
        artifact: the file.

    Returns:
        Its operators with shapes, multiply-accumulates per image and parameters, which of them the
        engine's delegate takes, and the scales of what is quantized.

    Raises:
        InvalidRequest: no such file, or neither a ``.tflite`` nor an ``.onnx`` file.
        InvalidArtifact: broken.
        EngineFailed: it crashes the engine, or takes too much time or memory.
        MissingDependency: the engine, or for ONNX the library onnx, is not installed.

    Example:
        >>> cct_export.inspect("cct.tflite").macs
    """
    path = Path(artifact)
    format = check_artifact(path)
    if format == "ncnn":
        raise InvalidRequest(f"{path} is a text: its lines are ncnn's layers, read it as it is")
    from cct_export.inspection import inspect_file

    return inspect_file(path, format)


def predict(
    source: str | Path = DEFAULT_MODEL,
    *,
    images: str | Path | Sequence[str | Path],
    top: int = 5,
    allow_changed: bool = False,
    options: ModelOptions = NO_OPTIONS,
    on_prediction: "Callable[[Prediction], None]" = no_progress,
    on_unreadable: "Callable[[InvalidData], None] | None" = None,
    progress: StatusProgress = no_progress,
) -> "list[Prediction]":
    """Classifies image files with an exported file or a model.

    Args:
        source: a ``.tflite`` or ``.onnx`` file, or a model, see ``load``.
        images: image files, folders with such files at any depth, or glob patterns
            (``photos/*.jpg``, ``**`` for any number of folders).
        top: classes per image, 1 or more.
        allow_changed: classify with a warning where the file has changed since it was exported, as
            by an optimizer that keeps its metadata.
        options: how to load a model, see ``load``; an exported file needs none.
        on_prediction: called with each prediction as soon as it is known.
        on_unreadable: called with the error of each image that cannot be read, which is left out;
            by default such an error is raised.
        progress: called with what runs now.

    Returns:
        One prediction per image: in the order of ``images``, those of a folder or pattern by path.

    Raises:
        InvalidRequest: an image does not exist, a folder or pattern stands for none, or there are
            options for an exported file.
        InvalidData: an image cannot be read.
        InvalidArtifact: the file cannot be run, or has changed since it was exported.
        CCTExportError: the source cannot be used.

    Example:
        >>> for prediction in cct_export.predict(images="photos/"):
        ...     print(prediction.image, prediction.top[0])
        photos/cat.jpg ('cat', 0.93)
    """
    from cct_export.evaluation.images import find_images
    from cct_export.evaluation.predict import classify, opened, refuse

    SIZE.check("top", top)
    check_has_model([source], options)
    check_options(options)
    files = find_images([images] if isinstance(images, str | Path) else images)
    progress(f"loading {source}")
    predictions = []
    with opened(Path(source), allow_changed=allow_changed, options=options) as session:
        for prediction in classify(
            session,
            images=files,
            top=top,
            on_unreadable=on_unreadable or refuse,
            progress=progress,
        ):
            on_prediction(prediction)
            predictions.append(prediction)
    return predictions


def bundle(artifact: str | Path, *, target: str, output: str | Path | None = None) -> Path:
    """Makes a folder for a device, with everything that runs and tests the file there.

    Args:
        artifact: a ``.tflite``, ``.onnx`` or ``.ncnn.param`` file with its sidecar.
        target: ``raspberry-pi``, ``android``, ``linux-cpp`` or ``microcontroller``.
        output: the folder, which must be empty or missing; by default in the working directory,
            named after file and target.

    Returns:
        The folder.

    Raises:
        InvalidRequest: there is no such file or target, or it does not take the format.
        InvalidArtifact: the file cannot be run, has changed since it was exported, has no sidecar,
            or fails on its golden images.
        OutputError: the folder cannot be written, or is not empty.

    Example:
        >>> cct_export.bundle("cct.tflite", target="raspberry-pi")
        PosixPath('cct-raspberry-pi')
    """
    from cct_export import bundles

    target = choose(target, bundles.TARGETS, what="target")
    path = Path(artifact)
    check_artifact(path)
    return bundles.make(path, target=target, output=Path(output or f"{path.stem}-{target}"))
