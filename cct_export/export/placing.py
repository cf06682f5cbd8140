"""Putting a file that is verified in its place, with its sidecar."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cct_export.export.candidate import CandidateFile
from cct_export.export.workspace import Workspace
from cct_export.files import locked, replacing, write_bytes
from cct_export.records import Exported, sidecar, weights

# The files are written and renamed within milliseconds.
_LOCK_WAIT_S = 10.0


def write(workspace: Workspace, candidate: CandidateFile) -> Exported:
    """Puts a candidate in its place with its sidecar; one that failed parity as ``.rejected``.

    Raises:
        OutputError: it cannot be written; what was there before stays.
    """
    artifact = candidate.artifact
    rejected = rejected_path(artifact.path)
    bound, own = candidate.bound, candidate.engine_operators
    if not candidate.parity.passed:
        with _beside(rejected, candidate.weights):
            write_bytes(rejected, candidate.content)
        moved = replace(artifact, path=rejected)
        return Exported(moved, candidate.parity, bound, engine_operators=own)
    images, reference = workspace.parity_images, workspace.reference
    rows = _golden_rows(candidate.agrees)
    golden = sidecar.Golden(images.images[rows], reference[rows], images.origin)
    # All are on the disk before any gets its name; the sidecar gets it first, then the weights.
    # Another export to the same file gives its own their names before or after that.
    with (
        contextlib.ExitStack() as stack,
        replacing(artifact.path) as temporary,
        _beside(artifact.path, candidate.weights),
    ):
        temporary.write_bytes(candidate.content)
        stack.enter_context(locked(artifact.path.parent, wait_s=_LOCK_WAIT_S))
        sidecar.write(artifact, golden)
    for path in filter(None, (rejected, weights.path_of(rejected))):
        path.unlink(missing_ok=True)
    return Exported(artifact, candidate.parity, bound, engine_operators=own)


def _golden_rows(agrees: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the rows of golden images, of those on which the file decides as the model.

    Golden images are for devices: of a few, two that the file itself decides otherwise would be
    too many. How many of all images those are, the parity of the export says.

    Args:
        agrees: for each image of parity, see ``parity.agreeing``.
    """
    rows = np.flatnonzero(agrees) if agrees.any() else np.arange(len(agrees))
    # Spread over the images: those of a folder come class by class.
    count = min(sidecar.GOLDEN_IMAGES, len(rows))
    return rows[np.linspace(0, len(rows) - 1, count, dtype=int)]


def rejected_path(path: Path) -> Path:
    """Returns where a file goes that failed parity: ``m.tflite.rejected`` for ``m.tflite``."""
    return path.with_name(path.name + ".rejected")


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> Iterator[None]:
    """Writes the weights of an artifact that has them in another file, when the block succeeds."""
    other = weights.path_of(path)
    if other is None:
        yield
        return
    with replacing(other) as temporary:
        temporary.write_bytes(content)
        yield
