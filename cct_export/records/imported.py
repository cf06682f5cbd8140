"""What was taken out of a foreign checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cct_export.records.encoding import plain


@dataclass(frozen=True)
class Imported:
    """A ``.keras`` file made of a model that other code saved.

    Attributes:
        path: the ``.keras`` file.
        source: what was imported.
        source_sha256: checksum of the file that held the weights.
        kind: what that is, in words.
        name: of the architecture, the preset's where it is one.
        image_shape: height, width and channels of the images it takes.
        classes: number of logits.
        tensors: how many the source held; all of them were used.
        parameters: numbers in them.
        notes: what was concluded or changed, a line each.
        difference: the largest difference of a logit from the source's own; None where the source
            cannot be run.
        images: how many images that is from.
        size_bytes: of the file.
        sha256: of the file.
    """

    path: Path
    source: str
    source_sha256: str
    kind: str
    name: str
    image_shape: tuple[int, int, int]
    classes: int
    tensors: int
    parameters: int
    notes: tuple[str, ...]
    difference: float | None
    images: int
    size_bytes: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        found: dict[str, Any] = plain(vars(self) | {"path": str(self.path)})
        return found
