"""What can be done with a file that was made: prove it, look into it, use it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.models import PARITY_SAMPLES, load
from cct_export.errors import InvalidRequest

if TYPE_CHECKING:
    from cct_export.api.models import Source
    from cct_export.records import Architecture, Inspection, ParityReport, Prediction


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
    from cct_export.evaluation.verify import verify as compare

    return compare(
        Path(artifact), None if against is None else load(against), data, samples, scheme
    )


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


def inspect_model(model: "Source") -> "Architecture":
    """Tells what a model is made of; a preset need not have weights.

    Args:
        model: name of any preset, or a model, see ``load``.

    Returns:
        Its layers with output shapes and parameters, of a CCT also multiply-accumulates per image
        and what the exported file costs.

    Raises:
        InvalidModel: not readable, unsafe, or no image classifier.
    """
    from cct_export.inspection import model as models
    from cct_export.model.cct import CCT
    from cct_export.model.presets import PRESETS, preset

    if isinstance(model, str) and (model in PRESETS or _is_name(model)):
        return models.inspect(CCT(preset(model)), model)
    loaded = load(model)
    return models.inspect(loaded.model, loaded.source)


def _is_name(model: str) -> bool:
    """Tells whether a word stands for a preset, if for anything: it is no path, or of nothing."""
    return model == Path(model).stem and not Path(model).exists()


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
    from cct_export.evaluation.predict import classify, open_any

    if isinstance(images, str | Path):
        images = [images]
    if not images:
        raise InvalidRequest("no image to predict: name one or more files")
    session = open_any(Path(source))
    return classify(session, [Path(image) for image in images], top)


def bundle(artifact: str | Path, target: str, output: str | Path | None = None) -> Path:
    """Makes a folder that can be put on a device, proves itself there, and runs.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file with its sidecar.
        target: ``raspberry-pi``, ``android`` or ``linux-cpp``.
        output: the folder, which must not hold anything yet; by default in the working directory,
            named after file and target.

    Returns:
        The folder.

    Raises:
        InvalidRequest: there is no such target, or it does not take the format.
        InvalidArtifact: the file cannot be run, has no sidecar, or does not give the logits there.
        OutputError: the folder cannot be written, or holds something.
    """
    from cct_export import bundles

    path = Path(artifact)
    return bundles.make(path, target, Path(output or f"{path.stem}-{target}"))
