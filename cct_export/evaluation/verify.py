"""An exported file against the Keras model that it was made of."""

from pathlib import Path

from cct_export.data import sampling
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.evaluation import parity
from cct_export.evaluation.predict import open_any
from cct_export.importers import LoadedModel, load_model, open_dataset
from cct_export.records import Contract, ParityReport
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import run


def verify(
    artifact: Path,
    against: LoadedModel | None,
    data: str | None,
    samples: int,
    scheme: str | None = None,
) -> ParityReport:
    """Compares an exported file, run by its own engine, with the Keras model.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file.
        against: the model; None for the one recorded in the file.
        data: what ``--data`` says.
        samples: test images to compare on.
        scheme: quantization scheme to judge by; None for that of the file.

    Returns:
        The report, judged by the policy of that scheme.

    Raises:
        InvalidRequest: the file is of another kind, or not of this model; no such scheme.
        InvalidArtifact: the file cannot be run.
        InvalidModel: the model is gone, or not the one that the file was made of.
        InvalidData: the data cannot be used.
    """
    if artifact.suffix not in (".tflite", ".onnx"):
        raise InvalidRequest(f"{artifact} is neither a .tflite nor an .onnx file")
    if scheme is not None and scheme not in parity.POLICIES:
        raise InvalidRequest(
            f"no scheme {scheme!r} to judge by: choose from {', '.join(parity.POLICIES)}"
        )
    session = open_any(artifact)
    contract = session.contract
    loaded = against or _source_of(artifact, contract)
    reference = KerasSession(loaded.model)
    if reference.image_shape != session.image_shape:
        raise InvalidRequest(
            f"{artifact} takes images of {session.image_shape}, {loaded.source} of "
            f"{reference.image_shape}: they are not the same model"
        )
    chosen = sampling.parity(open_dataset(loaded, data), session.image_shape, samples)
    wanted, found = run(reference, chosen.images), run(session, chosen.images)
    if wanted.shape != found.shape:
        raise InvalidRequest(
            f"{artifact} gives {found.shape[1]} logits, {loaded.source} {wanted.shape[1]}: "
            "they are not the same model"
        )
    return parity.compare(
        wanted,
        found,
        scheme or contract.scheme or "none",
        names=(loaded.source, str(artifact)),
        images=chosen.origin,
    )


def _source_of(artifact: Path, contract: Contract) -> LoadedModel:
    """Returns the model that ``artifact`` says it was made of, if it still is that model."""
    if not contract.source:
        raise InvalidModel(f"{artifact} does not say what it was made of: name it with --against")
    source = contract.source
    try:
        loaded = load_model(source)
    except InvalidModel as error:
        raise InvalidModel(
            f"{artifact} was made of {source!r}, which cannot be loaded here: "
            f"name the model with --against ({error})"
        ) from error
    if loaded.sha256 != contract.source_sha256:
        raise InvalidModel(
            f"{loaded.source} has changed since {artifact} was made of it: "
            "export again, or name the model with --against"
        )
    return loaded
