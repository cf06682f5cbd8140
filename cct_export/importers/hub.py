"""Checkpoints of the Hugging Face Hub: ``hf:OWNER/NAME``, or ``keras-io/NAME`` as it is."""

import re
from pathlib import Path

from cct_export.errors import InvalidModel, MissingDependency

TIMEOUT_S = 10
_ID = re.compile(r"(?:hf:(\w[\w.-]*/\w[\w.-]*)|(keras-io/\w[\w.-]*))")
# One of these is what is wanted; what else lies there (images, notes, Python code) stays there.
_SAVED_MODEL = ("saved_model.pb", "variables/*")
# What a run that was pushed there knows of its training images.
CALIBRATION = "calibration.npz"
_FILES = ("*.keras", "*.weights.h5", "*.safetensors", "*.pth", "*.pt", "*.bin")


def is_id(source: str) -> bool:
    """Tells whether ``source`` names a repository of the Hub and nothing that is here."""
    return bool(_ID.fullmatch(source)) and not Path(source).exists()


def fetch(source: str) -> Path:
    """Returns the SavedModel's folder, or the file of weights, of a repository.

    It is looked for in the Hub's cache where the Hub cannot be reached.

    Args:
        source: see ``is_id``.

    Raises:
        InvalidModel: no such repository, no network, or it holds no or several models.
        MissingDependency: huggingface_hub is not installed.
    """
    match = _ID.fullmatch(source)
    assert match is not None
    name = match[1] or match[2]
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependency.of("huggingface_hub", "hub") from error
    try:
        folder = Path(
            snapshot_download(
                name,
                allow_patterns=[*_SAVED_MODEL, *_FILES, CALIBRATION],
                etag_timeout=TIMEOUT_S,
            )
        )
    # The library raises its own errors, its HTTP client's and the system's.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidModel(f"{name} could not be fetched from the Hub: {reason}") from error
    if (folder / "saved_model.pb").is_file():
        return folder
    found = [path for pattern in _FILES for path in sorted(folder.glob(pattern))]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InvalidModel(f"{name} holds no single model this tool reads: {names}")
    return found[0]
