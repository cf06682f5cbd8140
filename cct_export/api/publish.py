"""Publishing a finished run on the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cct_export.api.request import check_artifact

if TYPE_CHECKING:
    from cct_export.records import Pushed

DEFAULT_RUN = "runs/cct"


def push(
    hub_id: str,
    *,
    run: str | Path = DEFAULT_RUN,
    artifacts: str | Path | Sequence[str | Path] = (),
    license: str | None = None,
    revision: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> "Pushed":
    """Pushes a finished run to the Hugging Face Hub, in one commit.

    The commit has the model card, the best weights, the run's record, metrics, pictures and the
    calibration record, but not the state to resume from. The token is that of huggingface_hub's
    login, or ``HF_TOKEN``.

    Args:
        hub_id: ``OWNER/NAME``; the repository is created if it does not exist.
        run: run directory.
        artifacts: ``.tflite`` and ``.onnx`` files exported from it, pushed with their sidecars.
        license: for the model card, as the Hub's identifier, such as ``apache-2.0``.
        revision: branch, created if it does not exist; by default ``main``.
        private: make the repository private.
        dry_run: push nothing, and return what would be pushed.

    Returns:
        The files and, if they were pushed, the address of the commit.

    Raises:
        InvalidRequest: there is no such run directory or artifact.
        InvalidModel: the run is not finished.
        InvalidArtifact: an artifact was exported from another model, or has no sidecar.
        MissingDependency: huggingface_hub is not installed.
        OutputError: no token, no connection, or the Hub refused; nothing was committed.

    Example:
        >>> cct_export.push("me/cct", run="runs/cct", artifacts="cct.tflite", dry_run=True).files
    """
    from cct_export.training import hub

    if isinstance(artifacts, str | Path):
        artifacts = [artifacts]
    paths = [Path(artifact) for artifact in artifacts]
    for path in paths:
        check_artifact(path)
    return hub.push(hub_id, Path(run), paths, license, revision, private, dry_run)
