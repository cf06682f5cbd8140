"""Where quantizing a model loses accuracy."""

from dataclasses import asdict, dataclass
from typing import Any

from cct_export.records.encoding import json_number


@dataclass(frozen=True)
class StepError:
    """What quantization does to one step.

    Attributes:
        step: name of the step and of the tensor it makes.
        kind: what it does.
        inputs: how it reads: ``float``, ``static`` or ``dynamic``.
        weight_bits: bits of its weights; None for floats, or none at all.
        sqnr_db: power of the float tensor over power of the difference, in dB: the noise of all
            steps so far; infinite if they are equal.
        low: smallest value of the tensor over the calibration images.
        high: largest value.
        grid_low: smallest value that its integers stand for; None if it is stored as floats.
        grid_high: largest.
        clipped: share of the values beyond the grid, 0 to 1.
        alone_db: noise ratio of the logits with this step quantized and no other.
        without_db: noise ratio of the logits with every other step quantized.
    """

    step: str
    kind: str
    inputs: str
    weight_bits: int | None
    sqnr_db: float
    low: float
    high: float
    grid_low: float | None
    grid_high: float | None
    clipped: float | None
    alone_db: float | None = None
    without_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            key: json_number(value) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class QuantizationReport:
    """What a scheme does to a model, step by step.

    Attributes:
        model: what the user said.
        format: of the file.
        scheme: quantization scheme.
        calibration: which images calibrated.
        images: which images the figures are of.
        sqnr_db: noise ratio of the logits.
        steps: every step with integers, in the order in which they are computed.
        kernels: operators that ONNX Runtime ran for one image, by kind; empty for TFLite.
    """

    model: str
    format: str
    scheme: str
    calibration: str
    images: str
    sqnr_db: float
    steps: tuple[StepError, ...]
    kernels: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        fields = {field: getattr(self, field) for field in self.__dataclass_fields__}
        return fields | {
            "sqnr_db": json_number(self.sqnr_db),
            "steps": [step.to_dict() for step in self.steps],
        }
