"""The best classes of an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, each with its probability, best first."""

    image: Path
    top: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "image": str(self.image),
            "top": [{"label": label, "probability": share} for label, share in self.top],
        }
