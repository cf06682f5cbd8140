"""Where quantizing a model loses accuracy."""

from dataclasses import dataclass

from cct_export.records.encoding import to_json
from cct_export.specs import JSONObject


@dataclass(frozen=True)
class StepError:
    """The error that quantization makes in one step.

    Attributes:
        step: name of the step and of its output tensor.
        kind: what it computes.
        inputs: how its inputs are quantized: ``float``, ``static`` or ``dynamic``.
        weight_bits: bits of its weights; None for float weights, or none.
        sqnr_db: SQNR of its output tensor in dB: the noise of all steps so far; infinite if it is
            equal to the float tensor.
        low: smallest value of the tensor over the calibration images.
        high: largest value.
        grid_low: smallest value that its integers represent; None if it is stored in float.
        grid_high: largest.
        clipped: share of the values outside of that range, 0 to 1.
        alone_db: SQNR of the logits with only this step quantized.
        without_db: SQNR of the logits with every other step quantized.
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


@dataclass(frozen=True)
class QuantizationReport:
    """The error of a quantization scheme, step by step.

    Attributes:
        model: what the user wrote.
        format: of the file.
        scheme: quantization scheme.
        calibration: which images calibrated.
        images: which images the figures are of.
        sqnr_db: SQNR of the logits.
        steps: every step with integers, in the order of computation.
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

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types."""
        fields: JSONObject = to_json(self)
        return fields
