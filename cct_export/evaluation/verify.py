"""Numerical parity of an exported file with its Keras model."""

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.data import sampling
from cct_export.errors import InvalidModel, InvalidRequest
from cct_export.evaluation import parity
from cct_export.records import Contract, ParityReport, sidecar
from cct_export.runtimes import open_by_target
from cct_export.runtimes.keras import KerasSession
from cct_export.runtimes.session import run
from cct_export.specs import NO_OPTIONS, ModelOptions, Normalization
from cct_export.specs.progress import StatusProgress, counted, no_progress

if TYPE_CHECKING:
    from cct_export.importers.source import LoadedModel

log = logging.getLogger(__name__)


def verify(
    artifact: Path,
    *,
    against: "LoadedModel | None",
    data: str | None,
    samples: int,
    scheme: str | None = None,
    options: ModelOptions = NO_OPTIONS,
    progress: StatusProgress = no_progress,
) -> ParityReport:
    """Compares an exported file, run by the engine of its target, with the Keras model.

    Args:
        artifact: a ``.tflite`` or ``.onnx`` file.
        against: the model; None for the one recorded in the file.
        data: dataset of the images, see ``importers.open_dataset``.
        samples: number of test images.
        scheme: quantization scheme whose policy applies, of ``parity.POLICIES``; None for that of
            the file.
        options: how to load the model that is recorded in the file, where it is to be loaded in
            another way than for the export.
        progress: called with what runs now.

    Returns:
        The parity report.

    Raises:
        InvalidRequest: the file is of another kind or of another model, or names a model that
            would have to be downloaded.
        InvalidArtifact: the file cannot be run.
        InvalidModel: the recorded model is missing or has changed.
        InvalidData: the data cannot be used.
    """
    with closing(open_by_target(artifact)) as session:
        contract = session.contract
        integrity = sidecar.examine(artifact, contract)
        if integrity.changed:
            log.warning("%s: %s", artifact, integrity.warning)
        progress("loading the model")
        loaded = against or _source_model(artifact, contract, options)
        _check_same_options(loaded.options, contract, recorded_model=against is None)
        if loaded.image_shape != session.image_shape:
            raise InvalidRequest(
                f"{artifact} takes images of {session.image_shape}, {loaded.source} of "
                f"{loaded.image_shape}: they are not the same model"
            )
        from cct_export.importers.source import open_dataset

        chosen = sampling.parity(open_dataset(loaded, data), session.image_shape, samples)
        keras_progress = counted(progress, "running the Keras model")
        model = KerasSession(loaded)
        reference = run(model, chosen.images, progress=keras_progress)
        candidate = run(session, chosen.images, progress=counted(progress, "verifying"))
    if reference.shape != candidate.shape:
        raise InvalidRequest(
            f"{artifact} gives {candidate.shape[1]} values, {loaded.source} "
            f"{reference.shape[1]}: they are not the same model"
        )
    return parity.compare(
        reference,
        candidate=candidate,
        scheme=scheme or contract.scheme or "none",
        names=(loaded.source, str(artifact)),
        images=chosen.origin,
        outputs=model.outputs,
    )


def _check_same_options(options: ModelOptions, contract: Contract, *, recorded_model: bool) -> None:
    """Warns of a model with another normalization or softmax than its export gave the file.

    Another model than the recorded one may need what is in the layers of that one.
    """
    identity, recorded = Normalization(), contract.options
    given, of_file = options.normalization or identity, recorded.normalization or identity
    if given.is_identity and not of_file.is_identity:
        log.warning("the file normalizes pixels, the model does not: add %s", of_file)
    elif given != of_file and (recorded_model or not of_file.is_identity):
        log.warning(
            "the file was exported with %s, and the model is loaded with %s: give the same",
            of_file,
            given,
        )
    if recorded.softmax and not options.softmax:
        log.warning("the file ends in a softmax, the model does not: add --softmax")
    if options.softmax and not recorded.softmax and recorded_model:
        log.warning("the model ends in a softmax, the file does not: leave --softmax out")


def _source_model(artifact: Path, contract: Contract, options: ModelOptions) -> "LoadedModel":
    """Loads the model that a file was exported from; it must not have changed since."""
    if not contract.source:
        raise InvalidModel(f"{artifact} does not name its model: name it with --against")
    from cct_export.importers import location
    from cct_export.model import start

    if location.is_hub_id(contract.source):
        raise InvalidRequest.of_unnamed(artifact, ["--against", contract.source])
    try:
        location.check(contract.source)
        start()
        from cct_export.importers.source import load_model

        recorded = contract.options
        options = replace(
            options,
            normalization=options.normalization or recorded.normalization,
            softmax=options.softmax or recorded.softmax,
            resize=options.resize or recorded.resize,
        )
        loaded = load_model(contract.source, options)
    except (InvalidModel, InvalidRequest) as error:
        raise InvalidModel(
            f"{artifact} was made of {contract.source!r}, which cannot be loaded here: "
            f"name the model with --against ({error})"
        ) from error
    if loaded.sha256 != contract.source_sha256:
        raise InvalidModel(
            f"{loaded.source} has changed since {artifact} was made of it: "
            "export again, or name the model with --against"
        )
    return loaded
