"""An exported file, and the contract that it carries inside."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Under this name a file carries the contract of its artifact.
CONTRACT_KEY = "cct_export.json"


@dataclass(frozen=True)
class Artifact:
    """An exported file.

    Attributes:
        path: the file.
        format: ``tflite`` or ``onnx``.
        scheme: quantization scheme.
        io: type of the image input, ``float32``, ``uint8`` or ``int8``.
        source: what it was made of, as the user said it.
        source_sha256: checksum of the ``.keras`` or ``.weights.h5`` file it was made of.
        image_shape: height, width, channels.
        batch: images per call; None for any number.
        classes: number of logits.
        labels: class names, in the order of the logits; empty if not known.
        calibration: which images calibrated it; empty if none.
        quantization: how it was calibrated, and which steps compute in integers; empty if none.
        versions: library versions it was made with.
        size_bytes: size of the file.
        sha256: checksum of the file.
    """

    path: Path
    format: str
    scheme: str
    io: str
    source: str
    source_sha256: str
    image_shape: tuple[int, int, int]
    batch: int | None
    classes: int
    labels: tuple[str, ...]
    calibration: str
    versions: dict[str, str]
    quantization: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    sha256: str = ""

    def contract(self) -> dict[str, Any]:
        """Returns what is stored inside the file itself: all but path, size and checksum."""
        fields = asdict(self)
        for outside in ("path", "size_bytes", "sha256", "classes"):
            del fields[outside]
        height, width, channels = self.image_shape
        fields["input"] = {
            "layout": "NHWC",
            "shape": [self.batch, height, width, channels],
            "dtype": self.io,
            "range": [-128, 127] if self.io == "int8" else [0, 255],
            "preprocessing": "pixel - 128" if self.io == "int8" else "raw pixels",
            "channels": "RGB" if channels == 3 else "grey",
            # As cct_export.data.decoding.decode does it.
            "resize": "bilinear, with antialiasing, not keeping the aspect ratio",
        }
        fields["output"] = {"name": "logits", "dtype": "float32", "classes": self.classes}
        return fields

    def to_dict(self) -> dict[str, Any]:
        """Returns the contract with path, size and checksum, as plain JSON types."""
        return {
            "path": str(self.path),
            "format": self.format,
            "scheme": self.scheme,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            **{k: v for k, v in self.contract().items() if k not in ("format", "scheme")},
        }
