"""A run where others can get it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

DEFAULT_RUN = "runs/cct"

if TYPE_CHECKING:
    from cct_export.records import Pushed


def push(
    hub_id: str,
    run: str | Path = DEFAULT_RUN,
    artifacts: Sequence[str | Path] = (),
    license: str | None = None,
    revision: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> "Pushed":
    """Sends a finished run to the Hugging Face Hub, in one commit.

    Sent are the model card, the best weights, the record, metrics, pictures and the calibration
    record; not the state to resume from. The token is that of huggingface_hub's login, or
    ``HF_TOKEN``.

    Args:
        hub_id: ``OWNER/NAME``; the repository is made if there is none.
        run: run directory.
        artifacts: ``.tflite`` and ``.onnx`` files made of its weights, sent with their sidecars.
        license: the Hub's identifier of it, such as ``apache-2.0``, for the card.
        revision: branch, made if there is none; by default ``main``.
        private: make the repository private.
        dry_run: send nothing, and tell what would be sent.

    Returns:
        The files and, if they were sent, the address of the commit.

    Raises:
        InvalidModel: there is no finished run.
        InvalidArtifact: an artifact was made of another model, or has no sidecar.
        MissingDependency: huggingface_hub is not installed.
        OutputError: no token, no connection, or the Hub refused; nothing was committed.
    """
    from cct_export.training import hub

    if isinstance(artifacts, str | Path):
        artifacts = [artifacts]
    paths = [Path(artifact) for artifact in artifacts]
    return hub.push(hub_id, Path(run), paths, license, revision, private, dry_run)
